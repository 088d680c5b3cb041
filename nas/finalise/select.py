"""After the search: joint fine-tuning, measurement on images nothing else used, and the tree that is handed over."""

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from modeltree.files import write_bytes, write_text
from modeltree.tree import ModelTree, encode_tree
from nas.compression.library import Library
from nas.config import SearchConfig
from nas.data import ImageSet
from nas.data.jpeg import jpeg_round_trip
from nas.finalise.action_tree import Menu
from nas.finalise.finetune import FinetuneConfig, Forest, complete_paths, finetune_, forest_seen, set_thresholds_
from nas.finalise.tree_builder import TreeBuilder, export_blocks
from nas.jobs.progress import Progress
from nas.names import ACTIONS, SIMPLER, TRAINED
from nas.results.run_directory import Run
from nas.training.base_network import Prepared
from nas.training.teacher import lessons
from nas.treesearch.evaluator import PathOutcome, PlanPath
from nas.treesearch.methods import MethodResult, reward_of
from nas.treesearch.problem import Outcome, Problem
from nas.treesearch.search_spaces import SearchSpaces

_BATCH = 250
_SMALL_STEPS, _STEPS = 100, 200
_HOPELESS = 5.0  # of 400
_TIE = 0.5  # of 400: less than what measuring accuracy on the search images can tell


@dataclass(frozen=True, kw_only=True)
class Concluded:
    """What is handed over, and what every executable method is worth as measured.

    tree : the tree to deploy; `chosen` is the method it comes from, the best on the search images.
    trees : per executable method, its blocks exported, and for `cloud_jpeg`, which has none.
    outcomes : likewise, with accuracies measured on test images and latencies predicted.
    base_accuracy : of the base network, percent on (search, test) images.
    finetuning : mean accuracy over the leaves before and after, and the steps; None if nothing was trained.
    """

    tree: ModelTree
    chosen: str
    trees: dict[str, ModelTree]
    outcomes: dict[str, Outcome]
    base_accuracy: tuple[float, float]
    finetuning: dict[str, float] | None
    seconds: dict[str, float]


def conclude(
    config: SearchConfig, prepared: Prepared, library: Library, spaces: SearchSpaces, cuts: Sequence[int],
    results: Mapping[str, MethodResult], run: Run, progress: Progress,
) -> Concluded:  # fmt: skip
    """Fine-tune the found paths together, measure them, and choose what is handed over.

    The tree found by the search is handed over unless, on the search images and after fine-tuning, a simpler method
    that is also a tree turns out to be worth as much, to half a point of reward.
    """
    space = spaces.tree
    own = {name: complete_paths(space, list(results[name].plans)) for name in SIMPLER if name in results}
    paths: dict[PlanPath, float] = {}
    for name in TRAINED:
        for path, chance in own.get(name, {}).items():
            paths[path] = paths.get(path, 0.0) + chance
    forest = Forest(prepared.network, space, library, paths)
    judged = prepared.search_images(config.seed)
    before = run.stage("before", lambda: list(forest_seen(forest, [judged]).values())) if paths else []
    settings = _settings(config, prepared)
    began = time.perf_counter()
    if paths and settings.steps:
        taught = lessons(prepared, library.folder, config.seed, progress)
        contenders = _contenders(own, results)
        finetune_(forest, taught, settings, paths=contenders, checkpoint=run.path("finetune.pt"), progress=progress)
        _keep_better_(forest, contenders, before, Forest(prepared.network, space, library, paths), judged)
    trained_s, began = time.perf_counter() - began, time.perf_counter()
    measured = run.stage("measured", lambda: _measure(prepared, forest, judged, library.folder, progress))
    measured_s = time.perf_counter() - began

    base = (measured["base_search"], measured["base_test"])
    on_search = _seen(own.values(), paths, measured["search"], base[0])
    on_test = _seen(own.values(), paths, measured["test"], base[1])
    judged_as = {name: reward_of(space.problem, results[name].plans, on_search) for name in own}
    chosen = _choose(judged_as, config.energy_mj)

    began = time.perf_counter()
    builder = TreeBuilder(spaces, cuts, prepared.dataset, base=config.base, trace=config.trace)
    trees = {}
    for name, plans in own.items():
        apart = forest if set(plans) <= set(paths) else Forest(prepared.network, space, library, plans)
        exported = export_blocks(prepared.network, apart, list(plans), run.path("blocks"))
        trees[name] = builder.tree(results[name].plans, on_test, "measured", exported)
    trees["cloud_jpeg"] = builder.jpeg(round(measured["jpeg_bytes"]), measured["jpeg_test"])
    outcomes = {name: reward_of(space.problem, results[name].plans, on_test) for name in own}
    outcomes["cloud_jpeg"] = _outcome(space.problem, trees["cloud_jpeg"])
    if space.endings.exits or space.endings.codes:
        trees[ACTIONS] = _actions(prepared, spaces, trees["device_only"], config.seed, run, progress)
        outcomes[ACTIONS] = _outcome(space.problem, trees[ACTIONS])
    if "tree" in own:
        outcomes["tree"], trees["tree"] = outcomes[chosen], trees[chosen]
    return Concluded(
        tree=trees[chosen], chosen=chosen, trees=trees, outcomes=outcomes, base_accuracy=base,
        finetuning=_finetuning(own, paths, before, measured, settings.steps),
        seconds={"finetune": trained_s, "measure": measured_s, "export": time.perf_counter() - began},
    )  # fmt: skip


def _actions(
    prepared: Prepared, spaces: SearchSpaces, header: ModelTree, seed: int, run: Run, progress: Progress
) -> ModelTree:  # fmt: skip
    """The base network's exits, cuts and bits: all in `actions.json`, those worth having as a tree to compile."""
    menu = Menu(prepared, spaces, header)
    measured = run.stage("actions", lambda: menu.measure(seed, progress))
    whole = menu.tree(measured["search"], menu.actions)
    write_bytes(run.path("actions.json"), encode_tree(whole))
    chosen = menu.worth_having(whole)
    exported = menu.export(chosen, run.path("blocks"))
    return menu.tree(measured["search"], chosen, shown=measured["test"], exported=exported)


def _outcome(problem: Problem, tree: ModelTree) -> Outcome:
    """What a tree is worth by its own leaves."""
    leaves = [(node, node.leaf) for node in tree.leaves() if node.leaf is not None]
    latency_ms = sum(leaf.chance * leaf.latency_ms for _, leaf in leaves)
    accuracy = sum(leaf.chance * leaf.accuracy for _, leaf in leaves)
    energy_mj = sum(
        leaf.chance * problem.energy_mj(sum(one.device_ms for one in tree.path(node.id)), node.transfer_ms)
        for node, leaf in leaves
    )
    return Outcome(problem.reward(accuracy, latency_ms), latency_ms, accuracy, energy_mj)


def _choose(judged: Mapping[str, Outcome], limit_mj: float | None) -> str:
    """The simplest of the best methods among those that keep the energy limit; if none does, what takes the least."""
    least = min(outcome.energy_mj for outcome in judged.values())
    limit = math.inf if limit_mj is None else max(limit_mj, least)
    worth = {name: outcome.reward for name, outcome in judged.items() if outcome.energy_mj <= limit}
    return next(name for name, value in worth.items() if value >= max(worth.values()) - _TIE)


def _settings(config: SearchConfig, prepared: Prepared) -> FinetuneConfig:
    steps = config.finetune_steps
    return FinetuneConfig(
        steps=(_SMALL_STEPS if prepared.small else _STEPS) if steps is None else steps,
        seed=config.seed,
    )


def _contenders(own: Mapping[str, Mapping[PlanPath, float]], results: Mapping[str, MethodResult]) -> list[PlanPath]:
    """Paths worth fine-tuning: those of methods that are not predicted to be hopelessly behind.

    A branch that is far behind the tree is often hardly compressed: it would take most of the time and win nothing.
    """
    valued = {name: results[name].valued for name in TRAINED if name in own}
    best = max(valued.values())
    chosen = (path for name, value in valued.items() if value > best - _HOPELESS for path in own[name])
    return list(dict.fromkeys(chosen))


def _keep_better_(
    forest: Forest, contenders: Sequence[PlanPath], before: Sequence[Sequence[float]], untouched: Forest,
    judged: tuple[torch.Tensor, np.ndarray],
) -> None:  # fmt: skip
    """Take fine-tuning back where it cost the contenders accuracy on the search images."""
    earlier, after = {path: PathOutcome(*one) for path, one in zip(forest.paths, before)}, forest_seen(forest, [judged])
    if sum(forest.paths[path] * (after[path].accuracy - earlier[path].accuracy) for path in contenders) < 0:
        forest.load_state_dict(untouched.state_dict())


def _measure(
    prepared: Prepared, forest: Forest, judged: tuple[torch.Tensor, np.ndarray], folder: Path, progress: Progress
) -> dict[str, Any]:  # fmt: skip
    """Accuracy of the base network, of JPEGs, and of every path, on search and on test images.

    What does not depend on the search is kept in `folder`, beside the base network's library.
    """
    test = prepared.dataset.test
    reference = folder / "reference.json"
    if reference.exists():
        found = json.loads(reference.read_text())
    else:
        decoded, jpeg_bytes = jpeg_round_trip(np.asarray(test.images))
        found = {
            "base_search": _top1(prepared, [judged]),
            "base_test": _top1(prepared, _batches(prepared, test)),
            "jpeg_test": _top1(prepared, _batches(prepared, ImageSet(images=decoded, labels=test.labels))),
            "jpeg_bytes": jpeg_bytes,
        }
        write_text(reference, json.dumps(found))
    set_thresholds_(forest, *judged)
    found["search"] = list(forest_seen(forest, [judged]).values())
    told = _told(_batches(prepared, test), -(-len(test) // _BATCH), progress)
    found["test"] = list(forest_seen(forest, told).values())
    return found


def _batches(prepared: Prepared, part: ImageSet) -> Iterator[tuple[torch.Tensor, np.ndarray]]:
    for start in range(0, len(part), _BATCH):
        chosen = slice(start, start + _BATCH)
        yield prepared.dataset.normalise(np.asarray(part.images[chosen])), part.labels[chosen]


def _told(
    batches: Iterator[tuple[torch.Tensor, np.ndarray]], total: int, progress: Progress
) -> Iterator[tuple[torch.Tensor, np.ndarray]]:
    for done, batch in enumerate(batches, 1):
        yield batch
        progress(done, total, "measuring")


def _top1(prepared: Prepared, batches: Any) -> float:
    right = count = 0
    with torch.no_grad():
        for images, labels in batches:
            right += int((prepared.model(images).argmax(1) == torch.from_numpy(labels)).sum())
            count += len(labels)
    return 100.0 * right / max(count, 1)


def _seen(
    own: Any, paths: Mapping[PlanPath, float], measured: Sequence[Sequence[float]], base: float
) -> dict[PlanPath, PathOutcome]:
    """What was measured per path; one that no method trained changes nothing, and is as good as the base network."""
    known = {path: PathOutcome(base, 1.0) for every in own for path in every}
    return known | {path: PathOutcome(*one) for path, one in zip(paths, measured)}


def _finetuning(
    own: Mapping[str, Mapping[PlanPath, float]], paths: Mapping[PlanPath, float], before: Sequence[Sequence[float]],
    measured: Mapping[str, Any], steps: int,
) -> dict[str, float] | None:  # fmt: skip
    """Mean accuracy over the found tree's leaves on the search images, before and after, and on test images."""
    leaves = own.get("tree") or own.get("branch")
    if not leaves or not before:
        return None

    def mean(values: Sequence[Sequence[float]]) -> float:
        known = {path: seen[0] for path, seen in zip(paths, values)}
        return sum(chance * known[path] for path, chance in leaves.items())

    return {
        "before": mean(before), "after": mean(measured["search"]), "base": measured["base_search"],
        "test": mean(measured["test"]), "base_test": measured["base_test"], "steps": steps,
    }  # fmt: skip
