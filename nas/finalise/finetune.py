"""All root-to-leaf paths of a tree trained together on the base network's logits [Wang 2020, sec. VII-A].

Nodes that do the same to the same block behind the same parents are one module, so a tree is trained as what it is: a
trie of blocks. What the cloud runs is the base network's own rest, never changed. What crosses is coded on the way, so
that the device's part learns to be coded [quantisation-aware training].
"""

import copy
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import fx, nn

from compile.numerics import Numerics
from modeltree.image_codes import image_code
from nas.compression.library import Choice, Library
from nas.compression.number_formats import SIGNED
from nas.exits.pictures import sent
from nas.exits.thresholds import LOST_BY_CONFIDENCE, largest_threshold
from nas.jobs.batches import channels_together, images_at_once
from nas.jobs.checkpoint import load_state, save_state
from nas.jobs.progress import Progress, silent
from nas.quality.losses import distillation_loss
from nas.quality.measure import TOP1, Measure
from nas.training.teacher import DistillationSet
from nas.treesearch.evaluator import PathOutcome, PlanPath
from nas.treesearch.problem import CONFIDENT, EXIT, HAND, Ending, Plan
from nas.treesearch.space import Space
from runtime.selection.early_exit import entropies_nats
from runtime.wire.codec import FLOAT_BITS
from transforms import Network, compose
from transforms.quantise import quantised


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

    paths : complete paths (plans from the first level on), with the share of inferences that take them; the first part
        of a path is one too where samples leave by confidence.
    measure : of answers.
    """

    def __init__(
        self, network: Network, space: Space, library: Library, paths: Mapping[PlanPath, float],
        measure: Measure = TOP1,
    ) -> None:  # fmt: skip
        super().__init__()
        blocks = space.problem.blocks
        self.paths = dict(paths)
        self.measure = measure
        self.at_once = images_at_once(network.spec)
        self.device = nn.ModuleDict()
        self.cloud: dict[Rest, nn.Module] = {}
        self.shapes: dict[Rest, tuple[int, ...]] = {}
        self.places: dict[PlanPath, int] = {}
        self.endings: dict[PlanPath, Ending] = {}
        self.thresholds: dict[PlanPath, float] = {}
        self._names: dict[PlanPath, str] = {}
        self._preprocessing = space.endings.preprocessing
        self._formats = space.formats
        self._starts: dict[PlanPath, int] = {}
        for path in self.paths:
            for depth in range(1, len(path) + 1):
                prefix = path[:depth]
                block, plan = blocks[depth - 1], prefix[-1]
                ending, place = block.ending(plan), block.start + plan.partition
                self._starts[prefix], self.places[prefix], self.endings[prefix] = block.start, place, ending
                if prefix not in self._names:
                    self._names[prefix] = f"node_{len(self._names)}"
                    chosen = space.variants(prefix)
                    own = {t.unit for t in block.units}
                    choices = {unit: choice for unit, choice in chosen.items() if unit in own}
                    module = _ended(self._block(network, library, block.start, place, choices), ending, place, space)
                    coded = ending.bits < FLOAT_BITS  # what crosses can be trained to be coded
                    module.requires_grad_(bool(chosen) or coded)  # all else in front of variants stays the base network
                    self.device[self._names[prefix]] = module
                    if ending.kind == CONFIDENT:
                        head = copy.deepcopy(space.endings.heads[place]).requires_grad_(bool(chosen))
                        self.device[f"head_{self._names[prefix]}"] = head
                        self.thresholds[prefix] = next(e.entropy for e in space.endings.exits if e.place == place)
            if (rest := self.rest(path)) is not None and rest not in self.cloud:
                whole: nn.Module = network.between(rest.place, len(network.spec.segments))
                self.shapes[rest] = network.spec.places[rest.place].shape
                if rest.kept:
                    self.shapes[rest] = next(e.shape for e in space.endings.codes if Rest(e.place, e.kept) == rest)
                    whole = nn.Sequential(copy.deepcopy(space.endings.coders[rest.place, rest.kept][1]), whole)
                self.cloud[rest] = whole.eval()

    def rest(self, path: PlanPath) -> "Rest | None":
        """What the cloud runs behind a path; None where it ends on the device."""
        ending = self.endings[path]
        return Rest(self.places[path], ending.kept) if ending.kind == HAND else None

    @staticmethod
    def _block(
        network: Network, library: Library, start: int, stop: int, choices: Mapping[int, Choice]
    ) -> fx.GraphModule:
        variants = library.variants(network, choices)
        return copy.deepcopy(compose(network, start, stop, variants)) if stop > start else network.between(start, start)

    def node(self, prefix: PlanPath) -> nn.Module:
        """The device's module of the node at the end of a path's first part."""
        return self.device[self._names[prefix]]

    def head(self, prefix: PlanPath) -> nn.Module:
        """The head by whose confidence samples leave at the end of a path's first part."""
        return self.device[f"head_{self._names[prefix]}"]

    def start(self, prefix: PlanPath) -> int:
        """The place where the last node of a branch's first part begins."""
        return self._starts[prefix]

    def logits(
        self, images: torch.Tensor, paths: Collection[PlanPath] | None = None
    ) -> Iterator[tuple[PlanPath, torch.Tensor]]:  # fmt: skip
        """(path, logits) for some paths (all unless said); shared first parts are computed once."""
        known: dict[PlanPath, torch.Tensor] = {(): channels_together(images)}
        received: dict[str, torch.Tensor] = {}
        for path in self.paths if paths is None else paths:
            for depth in range(1, len(path) + 1):
                if path[:depth] not in known:
                    known[path[:depth]] = self._run(path[:depth], known[path[: depth - 1]])
            code = self.endings[path].picture
            if code and code not in received:
                received[code] = self._received(images, code)
            yield path, self._end(path, received[code] if code else known[path])

    def number_format(self, prefix: PlanPath) -> str:
        """What the node at the end of a path's first part is computed in."""
        return self._formats[self.endings[prefix].form]

    def _run(self, prefix: PlanPath, x: torch.Tensor) -> torch.Tensor:
        """The device's part of a node, rounded as its number format does it."""
        number_format, node = self.number_format(prefix), self.node(prefix)
        if number_format == "f32":
            return torch.as_tensor(node(x))
        with Numerics(number_format, signed=SIGNED):
            return torch.as_tensor(node(x))

    def trains(self, path: PlanPath) -> bool:
        """Whether a path has weights that may change."""
        nodes = [self.node(path[:depth]) for depth in range(1, len(path) + 1)]
        heads = [self.head(path)] if self.endings[path].kind == CONFIDENT else []
        return any(weight.requires_grad for module in (*nodes, *heads) for weight in module.parameters())

    def _received(self, images: torch.Tensor, code: str) -> torch.Tensor:
        """What a server sees of the images when they cross in a code."""
        assert self._preprocessing is not None
        return sent(images, image_code(code), self._preprocessing)[0]

    def _end(self, path: PlanPath, x: torch.Tensor) -> torch.Tensor:
        ending, rest = self.endings[path], self.rest(path)
        if ending.kind == CONFIDENT:
            return torch.as_tensor(self.head(path)(x))
        if rest is None:
            return x
        return torch.as_tensor(self.cloud[rest](quantised(x, ending.bits) if ending.bits < FLOAT_BITS else x))


class Rest(NamedTuple):
    """What a cloud runs: the base network behind a place, behind the decoder of a bottleneck if `kept`."""

    place: int
    kept: int = 0


def _ended(block: nn.Module, ending: Ending, place: int, space: Space) -> nn.Module:
    """A device's block with what its ending adds to it: an exit's head, or an encoder."""
    if ending.kind == EXIT:
        return nn.Sequential(block, copy.deepcopy(space.endings.heads[place]))
    if ending.kept:
        return nn.Sequential(block, copy.deepcopy(space.endings.coders[place, ending.kept][0]))
    return block


def finetune_(
    forest: Forest, examples: DistillationSet, config: FinetuneConfig, *,
    paths: Collection[PlanPath] | None = None, checkpoint: Path | None = None,
    progress: Progress = silent,
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

    trained = [path for path in chosen if forest.trains(path)]

    def outputs(batch: torch.Tensor) -> Iterator[tuple[float, torch.Tensor]]:
        return ((forest.paths[path] / total, logits) for path, logits in forest.logits(batch, trained))

    _train_(forest.device, outputs, examples, config, checkpoint, progress)


def distil_whole_(network: nn.Module, examples: DistillationSet, config: FinetuneConfig) -> nn.Module:
    """Train a whole composed network in place on the base network's logits; returns it."""
    _train_(network, lambda batch: [(1.0, network(batch))], examples, config, None, silent)
    return network


def _train_(
    modules: nn.Module, outputs: Callable[[torch.Tensor], Iterable[tuple[float, torch.Tensor]]],
    examples: DistillationSet, config: FinetuneConfig, checkpoint: Path | None, progress: Progress,
) -> None:  # fmt: skip
    """Adam on the divergence between the base network's softened outputs and each of ours, weighted by its share."""
    loss = distillation_loss(examples.outputs, config.temperature)
    parameters = [p for p in modules.parameters() if p.requires_grad]
    if not parameters or config.steps == 0:
        return
    optimiser = torch.optim.Adam(parameters, lr=config.lr)
    total = max(config.steps, 20)  # torch divides by zero where warming up is one step
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, config.lr, total_steps=total, pct_start=0.1)
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
        chosen = np.sort(rng.choice(len(examples), size=min(config.batch_size, len(examples)), replace=False))
        batch, answers = examples.take(chosen, int(rng.integers(len(examples.logits))))
        losses = [share * loss(logits, answers) for share, logits in outputs(batch) if logits.requires_grad]
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


def set_thresholds_(forest: Forest, images: torch.Tensor, labels: np.ndarray) -> None:
    """Set the thresholds of the exits by confidence, which training has changed, on images held back.

    images : (n, c, h, w), normalised. labels : (n,). Against an exit stands the likeliest path that goes on behind it.
    """
    if not forest.thresholds:
        return
    forest.device.eval()
    logits: dict[PlanPath, list[np.ndarray]] = {path: [] for path in forest.paths}
    with torch.no_grad():
        for batch in images.split(forest.at_once):
            for path, answers in forest.logits(batch):
                logits[path].append(answers.numpy())
    joined = {path: np.concatenate(parts) for path, parts in logits.items()}
    for prefix in forest.thresholds:
        behind = [p for p in forest.paths if p[: len(prefix)] == prefix and p not in forest.thresholds]
        onward = max(behind, key=lambda path: forest.paths[path])
        right = [joined[path].argmax(1) == labels for path in (prefix, onward)]
        sure = largest_threshold(entropies_nats(joined[prefix]), *right, max_loss=LOST_BY_CONFIDENCE)
        forest.thresholds[prefix] = sure.entropy


def forest_seen(forest: Forest, batches: Iterable[tuple[torch.Tensor, np.ndarray]]) -> dict[PlanPath, PathOutcome]:
    """Every path on batches of normalised images (n, c, h, w) and what they should be answered with, (n, ...)."""
    came, left = (dict.fromkeys(forest.paths, 0) for _ in range(2))
    right = dict.fromkeys(forest.paths, 0.0)
    forest.device.eval()
    with torch.no_grad():
        for images, labels in batches:
            exits = {path: logits.numpy() for path, logits in forest.logits(images)}
            leaves = {path: entropies_nats(exits[path]) <= limit for path, limit in forest.thresholds.items()}
            for path, logits in exits.items():
                here = np.ones(len(labels), dtype=bool)
                for depth in range(1, len(path)):
                    if path[:depth] in leaves:
                        here &= ~leaves[path[:depth]]
                came[path] += int(here.sum())
                if path in leaves:
                    here &= leaves[path]
                left[path] += int(here.sum())
                right[path] += float(forest.measure.scores(torch.from_numpy(logits), labels)[here].sum())
    return {
        path: PathOutcome(
            100.0 * right[path] / max(left[path], 1),
            left[path] / came[path] if came[path] else 0.0,
            forest.thresholds.get(path, 0.0),
        )
        for path in forest.paths
    }


def complete_paths(space: Space, plans: list[Plan | None]) -> dict[PlanPath, float]:
    """Every distinct complete path of a tree and the chance that it is taken; see `Forest`."""
    problem = space.problem
    shape = problem.shape
    chance = [0.0] * len(plans)
    prefix: list[PlanPath] = [()] * len(plans)
    for node in range(-1, len(plans)):
        children = range(shape.first[1]) if node < 0 else shape.children[node]
        if not children or (node >= 0 and plans[node] is None):
            continue
        plan = None if node < 0 else plans[node]
        stay = 1.0 if plan is None else 1.0 - problem.blocks[shape.level[node]].ending(plan).rate
        for child, share in zip(children, problem.chances(node)):
            chance[child] = share * stay * (1.0 if node < 0 else chance[node])
    paths: dict[PlanPath, float] = {}
    for node, plan in enumerate(plans):
        if plan is None:
            continue
        above, level = shape.parent[node], shape.level[node]
        prefix[node] = (*(prefix[above] if above >= 0 else ()), plan)
        leaves = problem.blocks[level].ending(plan).rate
        if problem.ends(level, plan) or leaves:
            paths[prefix[node]] = paths.get(prefix[node], 0.0) + chance[node] * (leaves or 1.0)
    return paths
