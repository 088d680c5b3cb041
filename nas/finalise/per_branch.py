"""Per-branch distillation: every composed network trained whole, as the paper does it."""

import copy
import json
from pathlib import Path

from torch import nn

from modeltree.files import write_text
from nas.compression.accuracy import top1
from nas.compression.library import Choice
from nas.config import SearchConfig
from nas.finalise.finetune import FinetuneConfig, distil_whole_
from nas.jobs.progress import silent
from nas.training.base_network import Prepared
from nas.training.teacher import distillation_set
from nas.treesearch.evaluator import PlanPath
from nas.treesearch.space import Space
from transforms import compose, technique

_LR = 1e-3  # variants come as their techniques start them, so there is more to learn than in joint fine-tuning


class BranchOracle:
    """Accuracy of a branch after it was composed, distilled whole on the base network's logits, and measured.

    Variants start as their techniques make them, without block-wise distillation. What was measured is kept in `path`,
    so no network is trained twice, nor again after an interruption. `folder` keeps the base network's answers.
    """

    def __init__(self, prepared: Prepared, config: SearchConfig, path: Path, folder: Path) -> None:
        self.prepared, self.config, self.path = prepared, config, path
        self.known: dict[str, float] = json.loads(path.read_text()) if path.exists() else {}
        self.examples = distillation_set(prepared, folder, config.seed, silent)
        self.judged = prepared.search_images(config.seed)

    def __call__(self, space: Space, branch: PlanPath) -> float:
        """Percent, on the search images."""
        plan = space.variants(branch)
        key = json.dumps(sorted((unit, *choice) for unit, choice in plan.items()))
        if key not in self.known:
            self.known[key] = self._measured(plan)
            write_text(self.path, json.dumps(self.known))
        return self.known[key]

    def _measured(self, plan: dict[int, Choice]) -> float:
        network = self.prepared.network
        if not plan:
            return top1(self.prepared.model, *self.judged, measure=self.prepared.measure)
        variants: dict[int, nn.Module] = {
            unit: technique(choice.technique).apply(network.units[unit], choice.rate) for unit, choice in plan.items()
        }
        whole = copy.deepcopy(compose(network, 0, len(network.spec.segments), variants))  # it shares the base's weights
        config = FinetuneConfig(steps=self.config.branch_steps, seed=self.config.seed, lr=_LR)
        trained = distil_whole_(whole, self.examples, config)
        return top1(trained, *self.judged, measure=self.prepared.measure)
