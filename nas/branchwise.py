"""Per-branch distillation: every composed network trained whole, as the paper does it."""

import json
from pathlib import Path

import numpy as np
import torch
from torch import nn

from modeltree.files import write_text
from nas.config import SearchConfig
from nas.evaluate import Branch
from nas.finetune import FinetuneConfig, distil_whole_
from nas.library import Choice
from nas.measure import top1
from nas.prepare import Prepared
from nas.space import Space
from transforms import compose, technique


class BranchOracle:
    """Accuracy of a branch after it was composed, distilled whole on the base network's logits, and measured.

    Variants start as their techniques make them, without block-wise distillation. What was measured is kept in `path`,
    so no network is trained twice, nor again after an interruption.
    """

    def __init__(self, prepared: Prepared, config: SearchConfig, path: Path) -> None:
        self.prepared, self.config, self.path = prepared, config, path
        self.known: dict[str, float] = json.loads(path.read_text()) if path.exists() else {}
        self.images = prepared.fit_images(config.seed)
        self.judged = prepared.search_images(config.seed)

    def __call__(self, space: Space, branch: Branch) -> float:
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
            return top1(self.prepared.model, *self.judged)
        variants: dict[int, nn.Module] = {
            unit: technique(choice.technique).apply(network.units[unit], choice.rate) for unit, choice in plan.items()
        }
        whole = compose(network, 0, len(network.spec.segments), variants)
        config = FinetuneConfig(steps=self.config.branch_steps, seed=self.config.seed, flip=self.prepared.dataset.flip)
        return top1(distil_whole_(whole, self.prepared.model, self._batch, len(self.images), config), *self.judged)

    def _batch(self, chosen: np.ndarray) -> torch.Tensor:
        return self.images[torch.from_numpy(chosen)]
