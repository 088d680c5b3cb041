"""All root-to-leaf paths of a tree trained together on the base network's logits [Wang 2020, sec. VII-A].

Nodes that do the same to the same block behind the same parents are one module, so a tree is trained as what it is: a
trie of blocks. What the cloud runs is the base network's own rest, never changed.
"""

import copy
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import fx, nn

from nas.checkpoint import load_state, save_state
from nas.evaluate import Branch
from nas.lessons import Lessons
from nas.library import Choice, Library
from nas.problem import Plan
from nas.space import Space
from transforms import Network, compose


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """steps : of Adam with a one-cycle rate. temperature : of distillation."""

    steps: int = 200
    batch_size: int = 64
    lr: float = 1e-4
    temperature: float = 4.0
    seed: int = 0


class Forest(nn.Module):
    """The distinct paths of one or more trees as a trie of modules.

    paths : complete paths (plans from the first level on), with the share of inferences that take them.
    """

    def __init__(self, network: Network, space: Space, library: Library, paths: Mapping[Branch, float]) -> None:
        super().__init__()
        blocks = space.problem.blocks
        self.paths = dict(paths)
        self.device = nn.ModuleDict()
        self.cloud: dict[int, fx.GraphModule] = {}
        self.places: dict[Branch, int] = {}
        self._names: dict[Branch, str] = {}
        self._starts: dict[Branch, int] = {}
        for path in self.paths:
            for depth in range(1, len(path) + 1):
                prefix = path[:depth]
                block, plan = blocks[depth - 1], prefix[-1]
                self._starts[prefix], self.places[prefix] = block.start, block.start + plan.partition
                if prefix not in self._names:
                    self._names[prefix] = f"node_{len(self._names)}"
                    chosen = space.variants(prefix)
                    own = {t.unit for t in block.units}
                    choices = {unit: choice for unit, choice in chosen.items() if unit in own}
                    module = self._block(network, library, block.start, self.places[prefix], choices)
                    module.requires_grad_(bool(chosen))  # what no variant stands in front of stays the base network
                    self.device[self._names[prefix]] = module
            end = self.places[path]
            if end < len(network.spec.segments) and end not in self.cloud:
                self.cloud[end] = network.between(end, len(network.spec.segments)).eval()

    @staticmethod
    def _block(
        network: Network, library: Library, start: int, stop: int, choices: Mapping[int, Choice]
    ) -> fx.GraphModule:
        variants = library.variants(network, choices)
        return copy.deepcopy(compose(network, start, stop, variants)) if stop > start else network.between(start, start)

    def node(self, prefix: Branch) -> nn.Module:
        """The device's module of the node at the end of a path's first part."""
        return self.device[self._names[prefix]]

    def start(self, prefix: Branch) -> int:
        """The place where the last node of a branch's first part begins."""
        return self._starts[prefix]

    def logits(
        self, images: torch.Tensor, paths: Collection[Branch] | None = None
    ) -> Iterator[tuple[Branch, torch.Tensor]]:  # fmt: skip
        """(path, logits) for some paths (all unless said); shared first parts are computed once."""
        known: dict[Branch, torch.Tensor] = {(): images}
        for path in self.paths if paths is None else paths:
            for depth in range(1, len(path) + 1):
                if path[:depth] not in known:
                    known[path[:depth]] = self.node(path[:depth])(known[path[: depth - 1]])
            end = self.places[path]
            yield path, self.cloud[end](known[path]) if end in self.cloud else known[path]


Progress = Callable[[int, int, str], None]


def finetune_(
    forest: Forest, lessons: Lessons, config: FinetuneConfig, *,
    paths: Collection[Branch] | None = None, checkpoint: Path | None = None,
    progress: Progress = lambda done, total, text: None,
) -> None:  # fmt: skip
    """Train a forest in place on the base network's logits; every path counts by the share of inferences that take it.

    paths : those to train on; all unless said.
    checkpoint : written every 50 steps and at the end; an interrupted training goes on from it and ends with the same
        weights.
    """
    for rest in forest.cloud.values():
        rest.requires_grad_(False)
    chosen = list(forest.paths if paths is None else paths)
    total = sum(forest.paths[path] for path in chosen)

    def outputs(batch: torch.Tensor) -> Iterator[tuple[float, torch.Tensor]]:
        return ((forest.paths[path] / total, logits) for path, logits in forest.logits(batch, chosen))

    _train_(forest.device, outputs, lessons, config, checkpoint, progress)


def distil_whole_(network: nn.Module, lessons: Lessons, config: FinetuneConfig) -> nn.Module:
    """Train a whole composed network in place on the base network's logits; returns it."""
    _train_(network, lambda batch: [(1.0, network(batch))], lessons, config, None, lambda *_: None)
    return network


def _train_(
    modules: nn.Module, outputs: Callable[[torch.Tensor], Iterable[tuple[float, torch.Tensor]]], lessons: Lessons,
    config: FinetuneConfig, checkpoint: Path | None, progress: Progress,
) -> None:  # fmt: skip
    """Adam on the divergence between the base network's softened outputs and each of ours, weighted by its share."""
    parameters = [p for p in modules.parameters() if p.requires_grad]
    if not parameters or config.steps == 0:
        return
    optimiser = torch.optim.Adam(parameters, lr=config.lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, config.lr, total_steps=config.steps, pct_start=0.1)
    done = 0
    if checkpoint is not None and checkpoint.exists():
        state = load_state(checkpoint)
        modules.load_state_dict(state["modules"])
        optimiser.load_state_dict(state["optimiser"])
        schedule.load_state_dict(state["schedule"])
        done = state["done"]
    for step in range(done, config.steps):
        modules.train()
        rng = np.random.default_rng([config.seed, step])
        chosen = np.sort(rng.choice(len(lessons), size=min(config.batch_size, len(lessons)), replace=False))
        batch, answers = lessons.take(chosen, int(rng.integers(len(lessons.logits))))
        target = torch.softmax(answers / config.temperature, dim=1)
        losses = [
            share * _divergence(logits, target, config.temperature)
            for share, logits in outputs(batch)
            if logits.requires_grad
        ]
        if not losses:
            break
        optimiser.zero_grad()
        torch.stack(losses).sum().backward()
        optimiser.step()
        schedule.step()
        progress(step + 1, config.steps, "fine-tuning")
        if checkpoint is not None and ((step + 1) % 50 == 0 or step + 1 == config.steps):
            state = {"modules": modules.state_dict(), "optimiser": optimiser.state_dict(), "done": step + 1}
            save_state(checkpoint, {**state, "schedule": schedule.state_dict()})
    modules.eval()


def _divergence(logits: torch.Tensor, target: torch.Tensor, temperature: float) -> torch.Tensor:
    student = torch.log_softmax(logits / temperature, dim=1)
    return nn.functional.kl_div(student, target, reduction="batchmean") * temperature**2


def forest_accuracy(forest: Forest, batches: Iterable[tuple[torch.Tensor, np.ndarray]]) -> dict[Branch, float]:
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


def complete_paths(space: Space, plans: list[Plan | None]) -> dict[Branch, float]:
    """Every distinct complete path of a tree and the chance that it is taken."""
    problem = space.problem
    shape = problem.shape
    chance = [0.0] * len(plans)
    prefix: list[Branch] = [()] * len(plans)
    for node in range(-1, len(plans)):
        children = range(shape.first[1]) if node < 0 else shape.children[node]
        if not children or (node >= 0 and plans[node] is None):
            continue
        for child, share in zip(children, problem.chances(node)):
            chance[child] = share * (1.0 if node < 0 else chance[node])
    paths: dict[Branch, float] = {}
    for node, plan in enumerate(plans):
        if plan is None:
            continue
        above, level = shape.parent[node], shape.level[node]
        prefix[node] = (*(prefix[above] if above >= 0 else ()), plan)
        if plan.partition < problem.blocks[level].places or not shape.children[node]:
            paths[prefix[node]] = paths.get(prefix[node], 0.0) + chance[node]
    return paths
