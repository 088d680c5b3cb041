"""After the search: joint fine-tuning, measurement on images nothing else used, and the tree that is handed over."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modeltree.files import write_bytes
from modeltree.tree import ModelTree, encode_tree
from nas.config import SearchConfig
from nas.finalise.action_tree import ActionCatalogue, worth_having
from nas.finalise.choice import choose, outcome_of_leaves
from nas.finalise.contenders import contenders, finetune_settings, train_contenders_
from nas.finalise.finetune import Forest, complete_paths, forest_seen
from nas.finalise.measurement import measure, outcomes, parts
from nas.finalise.picture_ladder import Measured, picture_ladder, with_rungs
from nas.finalise.tree_builder import TreeBuilder, export_blocks
from nas.jobs.progress import Progress
from nas.names import ACTIONS, SIMPLER, TRAINED
from nas.results.run_directory import Run
from nas.training.base_network import Prepared
from nas.training.teacher import distillation_set
from nas.treesearch.evaluator import PathOutcome, PlanPath
from nas.treesearch.methods import MethodResult, reward_of
from nas.treesearch.problem import Outcome
from nas.treesearch.search_spaces import SearchSpaces

OwnPaths = Mapping[str, Mapping[PlanPath, float]]
"""Method -> its complete paths and the chance that each is taken."""

_LESSONS = 1.25  # images for every one that fine-tuning draws


@dataclass(frozen=True, kw_only=True)
class Concluded:
    """What is handed over, and what every executable method is worth as measured.

    tree : the tree to deploy; `chosen` is the method it comes from, the best on the search images.
    trees : per executable method, its blocks exported. `tree` is what is handed over.
    outcomes : likewise, with accuracies measured on test images and latencies predicted.
    searched : of the tree as it was searched, likewise; None if none was. Where another method is handed over,
        `outcomes` says nothing of it.
    base_accuracy : of the base network, percent on (search, test) images.
    finetuning : mean accuracy over the leaves before and after, and the steps; None if nothing was trained.
    """

    tree: ModelTree
    chosen: str
    trees: dict[str, ModelTree]
    outcomes: dict[str, Outcome]
    searched: Outcome | None
    base_accuracy: tuple[float, float]
    finetuning: dict[str, float] | None
    seconds: dict[str, float]


def conclude(
    config: SearchConfig, prepared: Prepared, spaces: SearchSpaces, results: Mapping[str, MethodResult], run: Run,
    progress: Progress,
) -> Concluded:  # fmt: skip
    """Fine-tune the found paths together, measure them, and choose what is handed over.

    The tree found by the search is handed over unless, on the search images and after fine-tuning, a simpler method
    that is also a tree turns out to be worth as much, to half a point of reward.
    """
    problem = spaces.tree.problem
    own = {name: complete_paths(spaces.tree, list(results[name].plans)) for name in SIMPLER if name in results}
    forest, before, seconds = _trained(config, prepared, spaces, results, own, run, progress)
    judged, folder = prepared.search_images(config.seed), spaces.library.folder
    began = time.perf_counter()
    measured = run.stage("measured", lambda: measure(prepared, forest, judged, folder, progress))
    seconds["measure"] = time.perf_counter() - began

    base = (measured["base_search"], measured["base_test"])
    on_search = outcomes(own.values(), forest.paths, measured["search"], base[0])
    on_test = outcomes(own.values(), forest.paths, measured["test"], base[1])
    chosen = choose({name: reward_of(problem, results[name].plans, on_search) for name in own}, config.energy_mj)

    began = time.perf_counter()
    builder = TreeBuilder(spaces, spaces.cuts, prepared, base=config.base, trace=config.trace)
    trees = _exported(builder, results, own, on_test, forest, run)
    worth = {name: reward_of(problem, results[name].plans, on_test) for name in own}
    if spaces.tree.endings.exits or spaces.tree.endings.codes:
        trees[ACTIONS] = _actions(prepared, spaces, trees["device_only"], config.seed, run, progress)
    worth |= {name: outcome_of_leaves(problem, trees[name]) for name in (ACTIONS,) if name in trees}
    searched = worth.get("tree")
    handed_over = trees[chosen]
    if searched is not None:  # from here on, `tree` is what is handed over (docs/run-directory.md)
        judged_tree = builder.tree(results[chosen].plans, on_search, "measured")
        rungs = picture_ladder(
            config, prepared, spaces, builder, Measured(judged_tree, base[0]), judged, run.path("blocks"), progress,
            lambda work: run.stage("ladder", work),
        )  # fmt: skip
        handed_over = with_rungs(handed_over, rungs)
        trees["tree"], worth["tree"] = handed_over, worth[chosen]
        _drop_unused_(run.path("blocks"), trees)
    seconds["export"] = time.perf_counter() - began
    steps = finetune_settings(config, prepared.network.spec, prepared.dataset).steps
    return Concluded(
        tree=handed_over, chosen=chosen, trees=trees, outcomes=worth, searched=searched, base_accuracy=base,
        finetuning=_finetuning(own, forest.paths, before, measured, steps), seconds=seconds,
    )  # fmt: skip


def _drop_unused_(folder: Path, trees: Mapping[str, ModelTree]) -> None:
    """Delete the blocks that no tree names any more: those of the searched tree, where another one is handed over."""
    nodes = [node for tree in trees.values() for node in tree.nodes]
    used = {node.block for node in nodes} | {node.handover.block for node in nodes if node.handover is not None}
    for path in folder.glob("*.pt2"):
        if path.stem not in used:
            path.unlink()


def _trained(
    config: SearchConfig, prepared: Prepared, spaces: SearchSpaces, results: Mapping[str, MethodResult], own: OwnPaths,
    run: Run, progress: Progress,
) -> tuple[Forest, list[Any], dict[str, float]]:  # fmt: skip
    """The paths of all trained methods as one forest, fine-tuned; what each gave before; the seconds that took."""
    paths: dict[PlanPath, float] = {}
    for name in TRAINED:
        for path, chance in own.get(name, {}).items():
            paths[path] = paths.get(path, 0.0) + chance
    for mine in own.values():  # what a coded picture is worth must be measured, whoever sends it
        for path, chance in mine.items():
            if spaces.tree.problem.ending_of(path).picture:
                paths.setdefault(path, chance)

    def planted() -> Forest:
        return Forest(prepared.network, spaces.tree, spaces.library, paths, prepared.measure)

    forest, judged = planted(), prepared.search_images(config.seed)
    before = run.stage("before", lambda: list(forest_seen(forest, parts(prepared, judged)).values())) if paths else []
    settings = finetune_settings(config, prepared.network.spec, prepared.dataset)
    began = time.perf_counter()
    if settings.steps and any(name in own for name in TRAINED):
        most = round(_LESSONS * settings.steps * settings.batch_size)
        examples = distillation_set(prepared, spaces.library.folder, config.seed, progress, most)
        chosen = contenders(own, {name: result.valued for name, result in results.items()})
        checkpoint = run.path("finetune.pt")
        train_contenders_(forest, planted, chosen, before, judged, examples, settings, checkpoint, progress)
    return forest, before, {"finetune": time.perf_counter() - began}


def _exported(
    builder: TreeBuilder, results: Mapping[str, MethodResult], own: OwnPaths,
    on_test: Mapping[PlanPath, PathOutcome], forest: Forest, run: Run,
) -> dict[str, ModelTree]:  # fmt: skip
    """The tree of every executable method, its blocks in the run's folder."""
    spaces = builder.spaces
    trees = {}
    for name, paths in own.items():
        known = set(paths) <= set(forest.paths)
        apart = forest if known else Forest(spaces.network, spaces.tree, spaces.library, paths)
        exported = export_blocks(spaces.network, apart, list(paths), run.path("blocks"))
        trees[name] = builder.tree(results[name].plans, on_test, "measured", exported)
    return trees


def _actions(
    prepared: Prepared, spaces: SearchSpaces, header: ModelTree, seed: int, run: Run, progress: Progress
) -> ModelTree:  # fmt: skip
    """The base network's exits, cuts and bits: all in `actions.json`, those worth having as a tree to compile."""
    catalogue = ActionCatalogue(prepared, spaces, header)
    measured = run.stage("actions", lambda: catalogue.measure(seed, progress))
    whole = catalogue.tree(measured["search"], catalogue.actions)
    write_bytes(run.path("actions.json"), encode_tree(whole))
    chosen = worth_having(whole)
    exported = catalogue.export(chosen, run.path("blocks"))
    return catalogue.tree(measured["search"], chosen, shown=measured["test"], exported=exported)


def _finetuning(
    own: OwnPaths, paths: Mapping[PlanPath, float], before: Sequence[Sequence[float]], measured: Mapping[str, Any],
    steps: int,
) -> dict[str, float] | None:  # fmt: skip
    """Mean accuracy over the found tree's leaves on the search images, before and after, and on test images."""
    leaves = own.get("tree") or own.get("branch")
    if not leaves or not before:
        return None

    def mean(values: Sequence[Sequence[float]]) -> float:
        known = {path: value[0] for path, value in zip(paths, values)}
        return sum(chance * known[path] for path, chance in leaves.items())

    return {
        "before": mean(before), "after": mean(measured["search"]), "base": measured["base_search"],
        "test": mean(measured["test"]), "base_test": measured["base_test"], "steps": steps,
    }  # fmt: skip
