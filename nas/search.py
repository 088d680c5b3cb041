"""The main job: from a trained network, a device, a cloud and their link to a model tree and an honest comparison.

Every stage leaves its result in the run directory (or, what other searches can use too, in the cache), so that a search
that was interrupted at any moment goes on and ends with the same tree.
"""

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import numpy as np
import torch

from compile.targets import host
from modeltree.errors import ConfigError, NasError
from modeltree.files import write_bytes, write_text
from modeltree.link.bandwidth import BandwidthTypes
from modeltree.link.scenes import load_trace
from modeltree.link.traces import Trace
from modeltree.link.transfer_time import TransferModel
from modeltree.met import read_met
from modeltree.profiles import load_profile
from modeltree.reward import Reward
from modeltree.slicing import slice_blocks
from modeltree.tree import ModelTree, encode_tree
from nas.compression.calibration_set import calibrate, screened
from nas.compression.distillation import DistilConfig
from nas.compression.library import Choice, Library, build_library, library_folder
from nas.compression.number_formats import format_drops
from nas.compression.predictor import Predictor, Quality, fit_predictor
from nas.config import SearchConfig
from nas.data import Dataset
from nas.emulation.known_types import met_link
from nas.exits.measure import learn_endings
from nas.exits.places import exit_places
from nas.expected_time import Expected, expected
from nas.finalise.choice import TIE
from nas.finalise.per_branch import BranchOracle
from nas.finalise.select import conclude
from nas.finalise.summarise import Findings, summarise
from nas.jobs.executors import executor
from nas.jobs.machine import processor
from nas.jobs.memory import keep_freed_memory
from nas.jobs.progress import Progress, StageProgress, silent_stages
from nas.jobs.threads import torch_threads
from nas.names import FIXED, OPTIMUM, PLAIN_TREE
from nas.profiling.device import open_timer
from nas.profiling.variants import read_pairs, timed_variants, write_pairs
from nas.refit import refitted
from nas.report import write_report
from nas.results.run_directory import Run, read_run
from nas.training.base_network import Prepared, check_learnt, prepare
from nas.training.train import TrainConfig
from nas.treesearch.methods import (
    MethodResult,
    fixed,
    run_branch,
    run_exact,
    run_optimum,
    run_surgery,
    run_tabular,
    run_tree,
    run_unforked,
)
from nas.treesearch.options.number_formats import KnownFormats
from nas.treesearch.search_spaces import (
    SearchSpaces,
    build_search_spaces,
    within_energy,
    without_endings,
    without_pictures,
)
from nas.treesearch.space import Scenario
from nas.treesearch.tensorboard import write_events
from transforms import Network


@dataclass(frozen=True)
class Searched:
    """What a finished search leaves: the run directory, its summary, and the tree."""

    folder: Path
    summary: dict[str, Any]
    tree: ModelTree


def search(
    config: SearchConfig, out: Path, *, cache: Path, resume: bool = False,
    progress: StageProgress = silent_stages, foresees: Callable[[Expected], object] | None = None,
) -> Searched:  # fmt: skip
    """Search a model tree and write a run directory.

    Parameters
    ----------
    out : the run directory; new or empty, or with `resume` one left by the same config.
    cache : decoded images, trained base networks and variant libraries, shared by all searches.
    foresees : told once what a new search is expected to take, before its long part begins.

    Raises
    ------
    ConfigError, DataError, FormatError, GraphError : whatever is off with the input, before anything is written if it
        can be known then.
    """
    began = time.perf_counter()
    torch.set_num_threads(config.workers)
    keep_freed_memory()
    trace = link_of(config)
    scenario = scenario_of(config, trace)
    run = Run.start(out, config, resume=resume)
    if run.finished:
        return Searched(out, *read_run(out))

    def cuts_of(network: Network) -> tuple[int, ...]:
        return slice_blocks(network.spec, config.N, exit_places(network, config.exits, base=config.base))

    def begins(network: Network, dataset: Dataset, training: TrainConfig) -> None:
        if foresees is not None:
            foresees(expected(config, network, dataset, training=training))

    try:
        prepared = prepare(config, out, cache, partial(progress, "base"), cuts_of, begins)
        cuts = cuts_of(prepared.network)
        check_learnt(prepared, config)
    except NasError:
        run.abandon()
        raise
    seconds = {"base": time.perf_counter() - began}
    if foresees is not None and not prepared.trained_now and run.is_new:
        folder = _library_of(config, prepared, cache)[1]
        foresees(expected(config, prepared.network, prepared.dataset, library=folder))
    library, predictor, quality, learnt = knowledge(config, prepared, cache, progress)
    started = time.perf_counter()
    endings = learn_endings(config, prepared, library.folder, partial(progress, "endings"))
    learnt["endings"] = time.perf_counter() - started
    started = time.perf_counter()
    formats = known_formats(config, prepared, cuts, run, progress)
    spaces = build_search_spaces(
        prepared.network, library, predictor, scenario, cuts, single_root=config.single_root, max_loss=config.max_loss,
        endings=endings, formats=formats,
    )  # fmt: skip
    searched = spaces if config.energy_mj is None else within_energy(spaces, config.energy_mj)
    oracle = None
    if config.distillation == "branch":
        oracle = BranchOracle(prepared, config, run.path("stages", "branches.json"), library.folder)
    simple = {name: fixed(searched, name) for name in _fixed(searched)}
    if not config.offered_codes:
        searched = without_pictures(searched)
    with torch_threads(1 if oracle is None else config.workers):  # an oracle trains what it is asked for
        results = simple | _methods(config, searched, run, oracle, partial(progress, "search"))
    seconds |= learnt | {"search": time.perf_counter() - started}
    concluded = conclude(config, prepared, spaces, results, run, partial(progress, "finetune"))
    seconds |= concluded.seconds
    seconds["total"] = time.perf_counter() - began
    findings = Findings(
        results=results, exact=None if oracle else run_exact(searched), quality=quality, seconds=seconds,
        unforked=None if oracle else run_unforked(searched),
    )  # fmt: skip
    summary = summarise(config, prepared, trace, spaces, findings, concluded)
    for name, tree in concluded.trees.items():
        write_bytes(run.path("methods", f"{name}.json"), encode_tree(tree))
    write_bytes(run.path("tree.json"), encode_tree(concluded.tree))
    write_report(out, summary, concluded.tree)
    write_text(run.path("summary.json"), json.dumps(summary, indent=1) + "\n")  # last: it says that all is done
    run.path("finetune.pt").unlink(missing_ok=True)
    return Searched(folder=out, summary=summary, tree=concluded.tree)


def scenario_of(config: SearchConfig, trace: Trace) -> Scenario:
    """Profiles, bandwidth types and costs of a config on a link."""
    forks: Any = config.forks
    device, cloud = load_profile(config.device), load_profile(config.cloud)
    if unpriced := [name for name in config.other_formats if name not in device.number_formats]:
        priced = ", ".join(["f32", *device.number_formats])
        raise ConfigError(
            f"profile {device.name} has no prices for {unpriced[0]} (it has {priced}): "
            f"measure them with nas profile --format {unpriced[0]}, or leave it out of --formats"
        )
    types = BandwidthTypes.from_trace(trace, config.K, forks=forks)
    scenario = Scenario(
        device=device, cloud=cloud, types=types, transfer=TransferModel(rtt_ms=trace.rtt_ms),
        reward=Reward(max_latency_ms=config.max_latency_ms),
        met=met_link(trace, types) if config.measure == "estimated" else None,
    )  # fmt: skip
    if config.measured is None:
        return scenario
    met = refitted(read_met(Path(config.measured)), device, cloud)
    return replace(scenario, device=met.device, cloud=met.cloud, extra_ms=met.extra_ms, message_bytes=met.message_bytes)


def link_of(config: SearchConfig) -> Trace:
    """The link that is searched for; a session's log says its round trip where nothing else does."""
    trace = load_trace(config.trace, seed=config.seed, rtt_ms=config.rtt_ms)
    if config.measured is None or config.rtt_ms is not None or trace.rtts_ms is not None:
        return trace
    met = read_met(Path(config.measured))
    return trace if met.kind != "session" or met.crossed is None else trace.with_rtt(met.crossed.rtt_ms)


def known_formats(
    config: SearchConfig, prepared: Prepared, cuts: Sequence[int], run: Run, progress: StageProgress = silent_stages
) -> KnownFormats:  # fmt: skip
    """The number formats that were asked for, and what each block loses in them on the search images."""
    names = config.other_formats
    if not names:
        return KnownFormats()
    judged = prepared.search_images(config.seed)
    told = partial(progress, "formats")
    drops = run.stage("formats", lambda: format_drops(prepared.network, cuts, names, judged, told, prepared.measure))
    return KnownFormats(names=names, drops={(start, stop): tuple(lost) for start, stop, lost in drops})


def knowledge(
    config: SearchConfig, prepared: Prepared, cache: Path, progress: StageProgress = silent_stages
) -> tuple[Library, Predictor, Quality, dict[str, float]]:
    """The variant library and the predictor taught on it; both are kept in the cache for every later search.

    Also returns the seconds that each took.
    """
    distil, folder = _library_of(config, prepared, cache)
    workers = executor(config.executor, config.workers)
    start = time.perf_counter()
    library = build_library(
        prepared.network, prepared.program, folder, prepared.fit_images(config.seed),
        prepared.probe_images(config.seed), workers, names=config.techniques,
        device=load_profile(config.device), config=distil, progress=partial(progress, "library"),
        measure=prepared.measure,
    )  # fmt: skip
    library = screened(library)
    if config.time_here:
        library = _timed(library, prepared, partial(progress, "timing"), config.seed)
    built = time.perf_counter()
    measured = calibrate(prepared, library, workers, config.seed, partial(progress, "calibration"))
    predictor, quality = _taught(library, prepared, measured)
    return library, predictor, quality, {"library": built - start, "calibration": time.perf_counter() - built}


def _library_of(config: SearchConfig, prepared: Prepared, cache: Path) -> tuple[DistilConfig, Path]:
    """How a network's variants are distilled, and the folder that keeps them."""
    distil = DistilConfig.of(prepared.dataset, config.seed)
    return distil, library_folder(cache / "library", *prepared.key, distil)


def _timed(library: Library, prepared: Prepared, progress: Progress, seed: int) -> Library:
    """The library with what each variant takes on this machine, timed unless an earlier search did."""
    path, machine = library.folder / "timed.json", processor()
    pairs = read_pairs(path, machine)
    missing = {key: record for key, record in library.records.items() if key not in pairs and not key[1].ends_network}
    if missing:
        with open_timer(host(), 1) as timer:
            rng = np.random.default_rng(seed)
            wanted = replace(library, records=missing)
            pairs |= timed_variants(prepared.network, wanted, timer, rng=rng, progress=progress)
        write_pairs(path, machine, pairs)
    return replace(library, timed={key: pair for key, pair in pairs.items() if key in library.records})


def _taught(
    library: Library, prepared: Prepared, measured: tuple[list[dict[int, Choice]], list[float], float]
) -> tuple[Predictor, Quality]:
    plans, accuracies, base = measured
    return fit_predictor(library, plans, accuracies, base=base, chance=prepared.chance)


def _fixed(spaces: SearchSpaces) -> tuple[str, ...]:
    """The baselines that there are: JPEGs of pictures only."""
    return FIXED if spaces.tree.endings.pictures else tuple(name for name in FIXED if name != "cloud_jpeg")


def _methods(
    config: SearchConfig,
    spaces: SearchSpaces,
    run: Run,
    oracle: BranchOracle | None,
    progress: Progress,
) -> dict[str, MethodResult]:
    """Every method that was asked for, in an order in which each finds what it builds on."""
    results: dict[str, MethodResult] = {}

    def stage(name: str, work: Callable[[], MethodResult]) -> None:
        found = run.stage(name, lambda: msgspec.to_builtins(work()))
        results[name] = msgspec.convert(found, MethodResult)
        if results[name].curve:
            write_events(run.path("events"), name, results[name].curve)

    wanted: Mapping[str, None] = dict.fromkeys(config.methods)
    if "surgery" in wanted:
        stage("surgery", lambda: run_surgery(spaces))
    if "branch" in wanted or ("tree" in wanted and config.boosting):
        stage("branch", lambda: run_branch(spaces, config, progress, oracle))
    plain = without_endings(spaces)
    if "tree" in wanted and (spaces.tree.endings.exits or spaces.tree.endings.codes):
        stage(
            PLAIN_TREE,
            lambda: run_tree(plain, config, run_branch(plain, config, progress), progress, name=PLAIN_TREE),
        )
    if "tree" in wanted:
        stage("tree", lambda: run_tree(spaces, config, results.get("branch"), progress, oracle))
    if "tree" in wanted and oracle is None:
        optimum = run_optimum(spaces)
        if optimum.valued > results["tree"].valued + TIE:
            stage(OPTIMUM, lambda: optimum)
    reference = max((r.evaluations for n, r in results.items() if n in ("branch", "tree")), default=config.budget)
    for name in ("random", "egreedy"):
        if name in wanted and oracle is None:
            stage(name, lambda name=name: run_tabular(spaces, config, name, reference))  # type: ignore[misc]
    return results


class _CallableModule(ModuleType):
    """This module, called as the function of its name: in `nas`, both are `nas.search`."""

    def __call__(self, *args: Any, **kwargs: Any) -> Searched:
        return search(*args, **kwargs)


sys.modules[__name__].__class__ = _CallableModule
