"""A field run: every method over the same stretch of the same link, in turn or interleaved."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np

from modeltree.files import write_bytes
from modeltree.tree import ModelTree
from modeltree.tree.emulate import oracle
from nas.field.config import FieldConfig
from nas.field.images import FieldImages, field_images
from nas.field.met import noted
from nas.field.methods import FieldMethod, find_methods, slowdown_text, subject_of
from nas.field.processes.links import chosen_link
from nas.field.processes.turn import play_interleaved, play_turn
from nas.field.record import FieldRun, MethodRun, Shot, encode_field
from nas.field.replay import Measured, method_run
from nas.jobs.machine import commit, load_average, processor, today
from nas.jobs.progress import StageProgress
from runtime.link import Shape
from runtime.meter import Meter
from runtime.selection.branch_selection import open_driver

FIELD_FILE = "field.json"


@dataclass(kw_only=True)
class Played:
    """What a run has brought so far; it grows while methods are played, so that an interrupted one can be written."""

    config: FieldConfig
    methods: tuple[FieldMethod, ...]
    images: FieldImages
    link: str
    load: float
    runs: list[MethodRun] = field(default_factory=list)
    replayed: list[ModelTree] = field(default_factory=list)
    meter: Meter = field(init=False)

    def __post_init__(self) -> None:
        self.meter = Meter(self.methods[0].tree)

    @property
    def record(self) -> FieldRun:
        """All finished turns."""
        return field_run(self)


def prepared(config: FieldConfig) -> Played:
    """Read bundles and images, and choose the link; nothing is started yet.

    Raises
    ------
    ConfigError : a bundle, an image folder or the link is off. FormatError, DataError : the policy is.
    """
    methods = tuple(find_methods(config.bundles))
    for method in methods:
        open_driver(method.tree, config.policy)  # a policy that does not fit is refused before anything starts
    images = field_images(subject_of(methods).manifest, config.images, count=config.count, seed=config.seed)
    return Played(
        config=config, methods=methods, images=images, link=chosen_link(config.link), load=load_average()
    )  # fmt: skip


def play_(played: Played, progress: StageProgress) -> None:
    """Play every method, one after the other or interleaved, and add what each brought.

    Raises
    ------
    NasError : a process failed, with its last words; methods that were finished before are kept.
    """
    config, checker = played.config, None
    if config.check is not None:
        from nas.field.checking import Checker

        checker = Checker(config.check)
    with tempfile.TemporaryDirectory(prefix="nas-field-") as folder:
        for method, brought in zip(played.methods, _brought(played, Path(folder), progress), strict=True):
            measured = noted(played.meter, method.tree, brought, config.trace)
            if checker is not None:
                from nas.field.checking import checked

                progress(method.name, config.count, config.count, "comparing with torch")
                errors = checked(checker, method.tree, measured.shots, measured.outputs, played.images)
                measured = _with_errors(measured, errors)
            run, replayed = method_run(
                method.name, str(method.folder), method.manifest, measured, config.trace, config.policy
            )
            played.runs.append(run)
            played.replayed.append(replayed)


def _brought(played: Played, folder: Path, progress: StageProgress) -> Iterator[Measured]:
    """What every method brought, in order; each is played when it is asked for, unless they are interleaved."""
    config = played.config

    def told(name: str) -> Callable[[int], None]:
        progress(name, 0, config.count, "starting")
        return lambda done: progress(name, done, config.count, "measured")

    if config.interleaved:
        yield from play_interleaved(played.methods, config, played.link, played.images, folder, told("all methods"))
        return
    for method in played.methods:
        yield play_turn(method, config, played.link, played.images, folder, told(method.name))


def field_run(played: Played) -> FieldRun:
    """The record of all finished turns."""
    config, trace = played.config, played.config.trace
    names = [run.name for run in played.runs]
    done = [method for method in played.methods if method.name in names]
    subject = subject_of(done or played.methods)
    tree = subject.tree
    starts_s = [shot.start_s for run in played.runs if run.name == subject.name for shot in run.shots]
    best: list[float] = []
    if starts_s:
        best = oracle(played.replayed, trace, np.array(starts_s), tree.reward).latency_ms.tolist()
    ends_s = max((shot.start_s for run in played.runs for shot in run.shots), default=config.offset_s)
    steps = Shape(trace=trace, offset_s=config.offset_s).steps(ends_s - config.offset_s)
    return FieldRun(
        trace=trace.name, trace_origin=trace.origin, rtt_ms=trace.rtt_ms, edges_mbps=tree.types.edges_mbps,
        representative_mbps=tree.types.representative_mbps, link=played.link,
        slowdown=slowdown_text(config.slowdown, tree), device=tree.device,
        cloud=f"this machine as it is (searched for {tree.cloud})", every_ms=config.apart_ms,
        deadline_ms=config.deadline_ms, base=tree.base, machine=f"{processor()}, load average {played.load:.1f} before",
        commit=commit(), date=today(), trace_time_s=tuple(config.offset_s + at_s for at_s, _ in steps),
        trace_mbps=tuple(mbps for _, mbps in steps), methods=tuple(played.runs), oracle_ms=tuple(best),
        policy=config.policy, interleaved=config.interleaved, max_latency_ms=tree.max_latency_ms,
        met=played.meter.met("field", f"field run over {trace.name}", rtt_ms=trace.rtt_ms),
    )  # fmt: skip


def write_field(record: FieldRun, folder: Path) -> Path:
    """Write `field.json`; returns where it is."""
    write_bytes(folder / FIELD_FILE, encode_field(record))
    return folder / FIELD_FILE


def worst_error(runs: Sequence[MethodRun]) -> float:
    """The largest difference to torch over all answers that were compared; 0 where none was."""
    return max((shot.error for run in runs for shot in run.shots if shot.error is not None), default=0.0)


def _with_errors(measured: Measured, errors: Sequence[float]) -> Measured:
    shots: tuple[Shot, ...] = tuple(
        msgspec.structs.replace(shot, error=error) for shot, error in zip(measured.shots, errors, strict=True)
    )
    return Measured(shots=shots, blocks_ms=measured.blocks_ms, outputs=measured.outputs)
