"""All root-to-leaf paths of a tree trained together on the base network's logits [Wang 2020, sec. VII-A].

Nodes that do the same to the same block behind the same parents are one module, so a tree is trained as what it is: a
trie of blocks. What the cloud runs is the base network's own rest, never changed.
"""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import fx, nn

from nas.checkpoint import load_state, save_state
from nas.library import Choice, Library
from nas.problem import Plan
from nas.space import Space
from transforms import Network, compose

PathPlans = tuple[Plan, ...]


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """steps : of Adam with a one-cycle rate, on mirrored images too where `flip`. temperature : of distillation."""

    steps: int = 300
    batch_size: int = 64
    lr: float = 1e-3
    temperature: float = 4.0
    flip: bool = False
    seed: int = 0


class Forest(nn.Module):
    """The distinct paths of one or more trees as a trie of modules.

    paths : complete paths (plans from the first level on), with the share of inferences that take them.
    """

    def __init__(self, network: Network, space: Space, library: Library, paths: Mapping[PathPlans, float]) -> None:
        super().__init__()
        blocks = space.problem.blocks
        self.paths = dict(paths)
        self.device = nn.ModuleDict()
        self.cloud: dict[int, fx.GraphModule] = {}
        self.places: dict[PathPlans, int] = {}
        self._names: dict[PathPlans, str] = {}
        for path in self.paths:
            for depth in range(1, len(path) + 1):
                prefix = path[:depth]
                block, plan = blocks[depth - 1], prefix[-1]
                self.places[prefix] = block.start + plan.partition
                if prefix not in self._names:
                    self._names[prefix] = f"node_{len(self._names)}"
                    chosen = space.variants(prefix)
                    own = {t.unit for t in block.units}
                    choices = {unit: choice for unit, choice in chosen.items() if unit in own}
                    self.device[self._names[prefix]] = self._block(network, library, block.start, self.places[prefix], choices)
            end = self.places[path]
            if end < len(network.spec.segments) and end not in self.cloud:
                self.cloud[end] = network.between(end, len(network.spec.segments)).eval()

    @staticmethod
    def _block(
        network: Network, library: Library, start: int, stop: int, choices: Mapping[int, Choice]
    ) -> fx.GraphModule:
        variants = library.variants(network, choices)
        return copy.deepcopy(compose(network, start, stop, variants)) if stop > start else network.between(start, start)

    def node(self, prefix: PathPlans) -> nn.Module:
        """The device's module of the node at the end of a path's first part."""
        return self.device[self._names[prefix]]

    def logits(self, images: torch.Tensor) -> Iterator[tuple[PathPlans, torch.Tensor]]:
        """(path, logits) for every path; shared first parts are computed once."""
        known: dict[PathPlans, torch.Tensor] = {(): images}
        for path in self.paths:
            for depth in range(1, len(path) + 1):
                if path[:depth] not in known:
                    known[path[:depth]] = self.node(path[:depth])(known[path[: depth - 1]])
            end = self.places[path]
            yield path, self.cloud[end](known[path]) if end in self.cloud else known[path]

    def trainable(self) -> list[nn.Parameter]:
        """Parameters of everything the device runs."""
        return [p for p in self.device.parameters() if p.requires_grad]


def finetune_(
    forest: Forest, teacher: nn.Module, images: Callable[[np.ndarray], torch.Tensor], count: int,
    config: FinetuneConfig, *, checkpoint: Path | None = None,
    progress: Callable[[int, int, str], None] = lambda done, total, text: None,
) -> None:  # fmt: skip
    """Train a forest in place on the teacher's logits; every path counts by the share of inferences that take it.

    images : gives normalised images for indices in 0..count.
    checkpoint : written every 50 steps; an interrupted training goes on from it and ends with the same weights.
    """
    parameters = forest.trainable()
    if not parameters or config.steps == 0:
        return
    for frozen in forest.cloud.values():
        frozen.requires_grad_(False)
    optimiser = torch.optim.Adam(parameters, lr=config.lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, config.lr, total_steps=config.steps, pct_start=0.1)
    done = 0
    if checkpoint is not None and checkpoint.exists():
        state = load_state(checkpoint)
        forest.device.load_state_dict(state["device"])
        optimiser.load_state_dict(state["optimiser"])
        schedule.load_state_dict(state["schedule"])
        done = state["done"]
    forest.device.train()
    total = sum(forest.paths.values())
    for step in range(done, config.steps):
        rng = np.random.default_rng([config.seed, step])
        batch = images(np.sort(rng.choice(count, size=min(config.batch_size, count), replace=False)))
        if config.flip and rng.random() < 0.5:
            batch = batch.flip(3)
        with torch.no_grad():
            target = torch.softmax(teacher(batch) / config.temperature, dim=1)
        loss = torch.zeros(())
        for path, logits in forest.logits(batch):
            if logits.requires_grad:
                student = torch.log_softmax(logits / config.temperature, dim=1)
                divergence = nn.functional.kl_div(student, target, reduction="batchmean") * config.temperature**2
                loss = loss + forest.paths[path] / total * divergence
        if not loss.requires_grad:
            break
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        progress(step + 1, config.steps, "fine-tuning")
        if checkpoint is not None and (step + 1) % 50 == 0:
            save_state(
                checkpoint,
                {
                    "device": forest.device.state_dict(),
                    "optimiser": optimiser.state_dict(),
                    "schedule": schedule.state_dict(),
                    "done": step + 1,
                },
            )
    forest.device.eval()


def forest_accuracy(
    forest: Forest, batches: Iterable[tuple[torch.Tensor, np.ndarray]]
) -> dict[PathPlans, float]:
    """Top-1 accuracy, in percent, of every path on batches of normalised images and labels."""
    right = dict.fromkeys(forest.paths, 0)
    count = 0
    forest.device.eval()
    with torch.no_grad():
        for images, labels in batches:
            truth = torch.from_numpy(labels)
            count += len(labels)
            for path, logits in forest.logits(images):
                right[path] += int((logits.argmax(1) == truth).sum())
    return {path: 100.0 * n / max(count, 1) for path, n in right.items()}


def complete_paths(space: Space, plans: list[Plan | None]) -> dict[PathPlans, float]:
    """Every distinct complete path of a tree and the chance that it is taken."""
    problem = space.problem
    shape = problem.shape
    chance, prefix = [0.0] * len(plans), [()] * len(plans)  # type: ignore[var-annotated]
    for node in range(-1, len(plans)):
        children = range(shape.first[1]) if node < 0 else shape.children[node]
        if not children or (node >= 0 and plans[node] is None):
            continue
        for child, share in zip(children, problem.chances(node)):
            chance[child] = share * (1.0 if node < 0 else chance[node])
    paths: dict[PathPlans, float] = {}
    for node, plan in enumerate(plans):
        if plan is None:
            continue
        above, level = shape.parent[node], shape.level[node]
        prefix[node] = (*(prefix[above] if above >= 0 else ()), plan)
        if plan.partition < problem.blocks[level].places or not shape.children[node]:
            paths[prefix[node]] = paths.get(prefix[node], 0.0) + chance[node]
    return paths
