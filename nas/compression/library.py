"""The variant library: every (unit, technique, rate) made once, kept by content, plugged in ever after."""

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import nn

from compile.program_file import read_program
from modeltree.errors import DataError
from modeltree.files import write_bytes
from modeltree.profiles import DeviceProfile
from nas.compression.budget import (
    first_place,
    probe_count,
    sample_images,
    step_images,
    unit_images,
    waves,
)
from nas.compression.candidates import (
    Choice,
    Record,
    candidates,
    covered,
    hopeless,
    needless,
    outdone,
    quickest,
    slower,
)
from nas.compression.distillation import DistilConfig, distil, relative_error
from nas.compression.features import Features, write_features
from nas.jobs.batches import channels_together, images_at_once
from nas.jobs.executors import Executor
from nas.jobs.memory import give_back
from nas.jobs.progress import Progress, silent
from nas.quality.measure import TOP1, Measure
from transforms import TECHNIQUES, Network, Unit, Variant, analyse, compose, technique
from transforms.compose import entry
from transforms.graph.describe import module_specs

__all__ = ["Choice", "Library", "Record", "build_library", "candidates", "covered", "library_folder"]

_RECIPE = 6  # raise it when distillation changes what a variant comes out as


@dataclass(frozen=True, kw_only=True)
class Library:
    """Variants of one base network, distilled on one data set.

    timed : milliseconds of what a variant takes the place of, and of the variant, where both were compiled and timed.
    """

    folder: Path
    records: dict[tuple[int, Choice], Record]
    declined: dict[tuple[int, Choice], str]
    timed: dict[tuple[int, Choice], tuple[float, float]] = field(default_factory=dict)

    def useless(self, key: tuple[int, Choice]) -> str:
        """Why a variant is not worth having where it was timed; empty if it is, or was not timed.

        One that prunes may save behind itself.
        """
        base_ms, own_ms = self.timed.get(key, (1.0, 0.0))
        if own_ms < base_ms or self.records[key].kept:
            return ""
        return f"saves no time: {own_ms:.3f} ms as compiled here, {base_ms:.3f} ms without it"

    def variant(self, network: Network, unit: int, choice: Choice) -> Variant:
        """The distilled variant, as a new module."""
        return read_variant(network, self.folder, unit, choice)

    def variants(self, network: Network, plan: Mapping[int, Choice]) -> dict[int, nn.Module]:
        """Modules for a plan: unit index -> choice; units that are not named stay as they are."""
        return {unit: self.variant(network, unit, choice) for unit, choice in plan.items()}


@dataclass(frozen=True, kw_only=True)
class _Context:
    program: Path
    folder: Path
    fit: Path
    probe: Path
    labels: np.ndarray
    config: DistilConfig
    measure: Measure = TOP1


def read_variant(network: Network, folder: Path, unit: int, choice: Choice) -> Variant:
    """A variant that a library's folder holds, as a new module.

    Raises
    ------
    DataError : it is not there, or damaged.
    """
    module = technique(choice.technique).structure(network.units[unit], choice.rate)
    path = folder / variant_file(unit, choice)
    try:
        module.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise DataError(f"variant {path} cannot be read ({reason}): delete it and run again") from error
    return module.eval()


def library_folder(root: Path, base: str, data: str, config: DistilConfig) -> Path:
    """Where the variants of a base network (fingerprint) on a data set (fingerprint) live under `root`."""
    key = json.dumps([_RECIPE, base, data, msgspec.to_builtins(config)])
    return root / hashlib.sha256(key.encode()).hexdigest()[:20]


def build_library(
    network: Network, program: Path, folder: Path, fit: torch.Tensor, probe: tuple[torch.Tensor, np.ndarray],
    executor: Executor, *, names: Sequence[str] = tuple(TECHNIQUES), device: DeviceProfile | None = None,
    config: DistilConfig | None = None, progress: Progress = silent, measure: Measure = TOP1,
) -> Library:  # fmt: skip
    """Make what `folder` does not hold yet. Each variant is written as it is done, so an interrupted build goes on.

    Every variant begins with what a closed form gives, the fastest of each unit first: slower ones are made only where
    those do harm. Steps of gradient follow only where the network still suffers, and where no other variant of the unit
    is as fast and does no harm.

    Parameters
    ----------
    program : file with the exported base network that `network` was analysed from; workers read it.
    fit : (n, c, h, w) normalised images to distil on.
    probe : held-back images and labels, or what else `measure` holds answers against, to judge variants on. How many
        of both are used, and how many features are on disk at once, `nas.compression.budget` says.
    device : where the network shall run; variants that save no time there are left out. None keeps them all.
    """
    config = config or DistilConfig()
    wanted, declined = candidates(network, names, device.lanes if device else 0)
    declined |= slower(network, wanted, device) if device else {}
    wanted = [key for key in wanted if key not in declined]
    records = {key: record for key in wanted if (record := _read_record(folder, *key)) is not None}
    count = probe_count(network.spec, len(probe[0]))
    builder = _Builder(network, program, folder, fit, (probe[0][:count], probe[1][:count]), executor, config, measure)

    def start(keys: Sequence[tuple[int, Choice]]) -> None:
        missing = [key for key in keys if key not in records]
        if missing:
            progress(len(records), len(wanted), "closed forms")
        for key, record in builder.run(_start_one, missing):
            records[key] = record
            progress(len(records), len(wanted), "closed forms")

    first = quickest(network, wanted, device) if device else wanted
    start(first)
    later = [key for key in wanted if key not in first]
    spared = needless(network, later, {key: records[key] for key in first}, device, config.enough) if device else {}
    wanted = [key for key in wanted if key not in spared]
    records = {key: record for key, record in records.items() if key not in spared}
    start(wanted)
    alone = {key: one for key, one in records.items() if covered(network.units[key[0]], key[1]) == (key[0],)}
    left_out = hopeless(records) | (outdone(alone, device, config.enough) if device else {})
    unsettled = [key for key in wanted if not records[key].settled and key not in left_out]
    progress(len(wanted) - len(unsettled), len(wanted), "variants")
    for done, (key, record) in enumerate(builder.run(_distil_one, unsettled), 1):
        records[key] = record
        progress(len(wanted) - len(unsettled) + done, len(wanted), "variants")
    ordered = {key: records[key] for key in wanted if records[key].settled}
    return Library(folder=folder, records=ordered, declined=declined | spared | left_out)


@dataclass(frozen=True)
class _Builder:
    """Runs tasks in parts whose features fit on disk together."""

    network: Network
    program: Path
    folder: Path
    fit: torch.Tensor
    probe: tuple[torch.Tensor, np.ndarray]
    executor: Executor
    config: DistilConfig
    measure: Measure

    def run(
        self, work: Callable[[Any, Any], Record], tasks: Sequence[tuple[int, Choice]]
    ) -> Iterator[tuple[tuple[int, Choice], Record]]:  # fmt: skip
        """Each task and its record, as they are done."""
        if not tasks:
            return
        root = self.folder / "scratch"
        root.mkdir(parents=True, exist_ok=True)
        _sweep(root)
        for wave in waves(self.network, tasks, len(self.fit), len(self.probe[0])):
            with tempfile.TemporaryDirectory(dir=root, prefix=f"{os.getpid()}-") as scratch:
                context = _written(
                    self.network, self.program, self.folder, self.fit, self.probe, Path(scratch), wave, self.config
                )
                context = replace(context, measure=self.measure)
                give_back()  # the workers need memory now
                for index, record in self.executor.run(_setup, work, context, wave):
                    yield wave[index], record


def _written(
    network: Network, program: Path, folder: Path, fit: torch.Tensor, probe: tuple[torch.Tensor, np.ndarray],
    scratch: Path, wave: Sequence[tuple[int, Choice]], config: DistilConfig,
) -> _Context:  # fmt: skip
    """Features for some tasks, in `scratch`: inputs and targets of their units, and the cuts that their effects are
    computed from."""
    places = network.spec.places
    fitted: dict[str, int] = {}
    judged = {places[-1].after: len(probe[0])}
    for index, choice in wave:
        unit = network.units[index]
        for node in _ends(network, unit, choice):
            fitted[node] = max(fitted.get(node, 0), unit_images(unit, len(fit)))
            judged[node] = max(judged.get(node, 0), unit_images(unit, len(probe[0])))
        judged[places[first_place(network, unit)].after] = len(probe[0])
    write_features(network, fit, fitted, scratch / "fit")
    write_features(network, probe[0], judged, scratch / "probe")
    return _Context(
        program=program, folder=folder, fit=scratch / "fit", probe=scratch / "probe", labels=probe[1], config=config
    )


def _ends(network: Network, unit: Unit, choice: Choice) -> tuple[str, str]:
    """The nodes whose values a variant is given, and has to give."""
    body = technique(choice.technique).reach(unit)
    if body is not None:
        return body.source, body.output
    return unit.source, network.spec.places[-1].after if choice.ends_network else unit.output


def _setup(context: _Context) -> tuple[_Context, Network]:
    return context, analyse(read_program(context.program))


def _start_one(state: tuple[_Context, Network], task: tuple[int, Choice]) -> Record:
    """A variant as its closed form gives it, judged; settled if that is good enough."""
    context, network = state
    began = time.perf_counter()
    unit, inputs, targets, held = _material(context, network, task)
    samples = sample_images(unit)
    start = technique(task[1].technique).apply(unit, task[1].rate, (inputs[:samples], targets[:samples]))
    return _recorded(context, network, task, start, relative_error(start, *held), began, settled=False)


def _distil_one(state: tuple[_Context, Network], task: tuple[int, Choice]) -> Record:
    """A variant trained from its closed form, which `_start_one` has left."""
    context, network = state
    began = time.perf_counter()
    unit, inputs, targets, held = _material(context, network, task)
    start = read_variant(network, context.folder, *task)
    config = replace(context.config, batch_size=step_images(unit, context.config.batch_size))
    variant, error = distil(start, inputs, targets, held, config)
    return _recorded(context, network, task, variant, error, began, settled=True)


def _material(
    context: _Context, network: Network, task: tuple[int, Choice]
) -> tuple[Unit, torch.Tensor, torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
    """A unit, what enters a variant, what that shall give, and both for images held back."""
    unit, fit, probe = network.units[task[0]], Features(context.fit), Features(context.probe)
    source, target = _ends(network, unit, task[1])
    count = min(unit_images(unit, len(fit[node])) for node in (source, target))
    held = unit_images(unit, len(context.labels))
    return unit, fit[source][:count], fit[target][:count], (probe[source][:held], probe[target][:held])


def _recorded(
    context: _Context, network: Network, task: tuple[int, Choice], variant: Variant, error: float, began: float, *,
    settled: bool,
) -> Record:  # fmt: skip
    """Judge a variant in the whole network, and write it."""
    index, choice = task
    logit_error, drop = _effect(network, index, variant, Features(context.probe), context)
    settled |= logit_error <= context.config.enough or not any(True for _ in variant.parameters())
    settled |= technique(choice.technique).solved and error <= context.config.near
    restore = variant.restore
    record = Record(
        unit=index,
        technique=choice.technique,
        rate=choice.rate,
        error=error,
        logit_error=logit_error,
        drop=drop,
        seconds=time.perf_counter() - began,
        layers=tuple(module_specs(variant, network.shape_of(_ends(network, network.units[index], choice)[0]))),
        kept=restore.in_channels if isinstance(restore, nn.Conv2d) else 0,
        foldable=entry(variant) is not None,
        settled=settled,
    )
    data = save(variant.state_dict(), metadata={"record": msgspec.json.encode(record).decode()})
    write_bytes(context.folder / variant_file(index, choice), data)
    return record


def _effect(
    network: Network, index: int, variant: Variant, probe: Features, context: _Context
) -> tuple[float, float]:  # fmt: skip
    """Relative error of the logits and points of accuracy lost, with this variant alone plugged in."""
    spec = network.spec
    place = first_place(network, network.units[index])
    rest = compose(network, place, len(spec.segments), {index: variant})
    base = probe[spec.places[-1].after]
    with torch.no_grad():
        parts = probe[spec.places[place].after].split(images_at_once(spec))
        logits = torch.cat([rest(channels_together(part)) for part in parts])
    error = float((logits - base).square().mean() / base.var().clamp_min(1e-12))
    own, there = (context.measure.scores(answers, context.labels) for answers in (base, logits))
    return error, 100.0 * float(own.mean() - there.mean())


def _sweep(folder: Path) -> None:
    """Remove what killed processes left: folders are named after the process that made them."""
    if not Path("/proc/self").exists():
        return
    for left in folder.iterdir():
        owner = left.name.split("-")[0]
        if owner.isdigit() and not Path("/proc", owner).exists():
            shutil.rmtree(left, ignore_errors=True)


def variant_file(unit: int, choice: Choice) -> str:
    """What the file of a variant is called in a library's folder."""
    return f"{unit:03d}_{choice.technique}_{choice.rate:g}.safetensors"


def _read_record(folder: Path, unit: int, choice: Choice) -> Record | None:
    path = folder / variant_file(unit, choice)
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="numpy") as file:
            return msgspec.json.decode(file.metadata()["record"], type=Record)
    except (SafetensorError, KeyError, TypeError, msgspec.MsgspecError):
        return None  # of an older recipe or damaged: distilled again
