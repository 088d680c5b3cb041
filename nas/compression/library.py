"""The variant library: every (unit, technique, rate) distilled once, kept by content, plugged in ever after."""

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import nn

from compile.program_file import read_program
from modeltree.errors import DataError, NotApplicable
from modeltree.files import write_bytes
from modeltree.layers import LayerSpec
from nas.compression.budget import (
    first_place,
    probe_count,
    sample_images,
    step_images,
    unit_images,
    waves,
)
from nas.compression.distillation import DistilConfig, distil
from nas.compression.features import Features, write_features
from nas.jobs.batches import images_at_once
from nas.jobs.executors import Executor
from nas.jobs.progress import Progress, silent
from nas.quality.measure import TOP1, Measure
from transforms import TECHNIQUES, Network, Unit, Variant, analyse, compose, technique
from transforms.compose import entry
from transforms.graph.describe import module_specs

LANES = 16
"""Numbers in the widest vectors that we compile for: a multiple of it is one of the vectors of every target."""

_RECIPE = 3  # raise it when distillation changes what a variant comes out as


class Choice(NamedTuple):
    """A technique at a rate."""

    technique: str
    rate: float

    def __str__(self) -> str:
        return self.technique if self.rate == 1.0 else f"{self.technique}@{self.rate:g}"

    @property
    def ends_network(self) -> bool:
        """Whether the units behind are not needed."""
        known = TECHNIQUES.get(self.technique)
        return known is not None and known.ends_network


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is known of a variant.

    error : of its output, relative to the variance of the base unit's, on held-back images.
    logit_error : of the whole network's output with this variant alone plugged in, relative likewise.
    drop : points of accuracy lost on the probe images with this variant alone plugged in; may be negative.
    layers : what it costs on its own.
    kept : channels that reach its restoring map, 0 if it has none (every technique but pruning).
    foldable : whether a pruned neighbour in front can fold into it.
    """

    unit: int
    technique: str
    rate: float
    error: float
    logit_error: float
    drop: float
    seconds: float
    layers: tuple[LayerSpec, ...]
    kept: int
    foldable: bool

    @property
    def choice(self) -> Choice:
        """Technique and rate."""
        return Choice(self.technique, self.rate)


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
        module = technique(choice.technique).structure(network.units[unit], choice.rate)
        path = self.folder / _file_name(unit, choice)
        try:
            module.load_state_dict(load_file(path))
        except (OSError, SafetensorError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[0]
            raise DataError(f"variant {path} cannot be read ({reason}): delete it and run again") from error
        return module.eval()

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


def library_folder(root: Path, base: str, data: str, config: DistilConfig) -> Path:
    """Where the variants of a base network (fingerprint) on a data set (fingerprint) live under `root`."""
    key = json.dumps([_RECIPE, base, data, msgspec.to_builtins(config)])
    return root / hashlib.sha256(key.encode()).hexdigest()[:20]


def covered(unit: Unit, choice: Choice) -> tuple[int, ...]:
    """The units that a variant takes the place of, in order."""
    if choice.ends_network:
        return tuple(range(unit.index, unit.index + unit.fc_span))
    known = TECHNIQUES.get(choice.technique)
    body = None if known is None else known.reach(unit)
    return (unit.index,) if body is None else body.units


def candidates(
    network: Network, names: Iterable[str], lanes: int = LANES
) -> tuple[list[tuple[int, Choice]], dict[tuple[int, Choice], str]]:
    """Every (unit, choice) that applies, and the reasons of those that do not.

    lanes : numbers in a vector of the target; of channels that a technique leaves out, whole vectors are kept.
    """
    applies, declined = [], {}
    for unit in network.units:
        for name in names:
            for rate in technique(name).rates_for(unit, lanes):
                key = (unit.index, Choice(name, rate))
                try:
                    technique(name).structure(unit, rate)
                    applies.append(key)
                except NotApplicable as reason:
                    declined[key] = str(reason)
    return applies, declined


def build_library(
    network: Network, program: Path, folder: Path, fit: torch.Tensor, probe: tuple[torch.Tensor, np.ndarray],
    executor: Executor, *, names: Sequence[str] = tuple(TECHNIQUES), config: DistilConfig | None = None,
    lanes: int = LANES, progress: Progress = silent, measure: Measure = TOP1,
) -> Library:  # fmt: skip
    """Distil what `folder` does not hold yet. Each variant is written as it is done, so an interrupted build goes on.

    Parameters
    ----------
    program : file with the exported base network that `network` was analysed from; workers read it.
    fit : (n, c, h, w) normalised images to distil on.
    probe : held-back images and labels, or what else `measure` holds answers against, to judge variants on. How many
        of both are used, and how many features are on disk at once, `nas.compression.budget` says.
    """
    config = config or DistilConfig()
    wanted, declined = candidates(network, names, lanes)
    records = {key: record for key in wanted if (record := _read_record(folder, *key)) is not None}
    missing = [key for key in wanted if key not in records]
    progress(len(records), len(wanted), "variants")
    if missing:
        scratch_root = folder / "scratch"
        scratch_root.mkdir(parents=True, exist_ok=True)
        _sweep(scratch_root)
        count = probe_count(network.spec, len(probe[0]))
        judged = probe[0][:count], probe[1][:count]
        for wave in waves(network, missing, len(fit), count):
            with tempfile.TemporaryDirectory(dir=scratch_root, prefix=f"{os.getpid()}-") as scratch:
                context = _written(network, program, folder, fit, judged, Path(scratch), wave, config)
                context = replace(context, measure=measure)
                for index, record in executor.run(_setup, _distil_one, context, wave):
                    records[wave[index]] = record
                    progress(len(records), len(wanted), "variants")
    ordered = {key: records[key] for key in wanted}
    return Library(folder=folder, records=ordered, declined=declined)


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


def _distil_one(state: tuple[_Context, Network], task: tuple[int, Choice]) -> Record:
    context, network = state
    index, choice = task
    began = time.perf_counter()
    unit, fit, probe = network.units[index], Features(context.fit), Features(context.probe)
    source, target = _ends(network, unit, choice)
    count = min(unit_images(unit, len(fit[node])) for node in (source, target))
    inputs, targets = fit[source][:count], fit[target][:count]
    samples = sample_images(unit)
    start = technique(choice.technique).apply(unit, choice.rate, (inputs[:samples], targets[:samples]))
    held = unit_images(unit, len(context.labels))
    config = replace(context.config, batch_size=step_images(unit, context.config.batch_size))
    if technique(choice.technique).solved:
        config = replace(config, done=config.near)
    variant, error = distil(start, inputs, targets, (probe[source][:held], probe[target][:held]), config)
    logit_error, drop = _effect(network, index, variant, probe, context)
    restore = variant.restore
    record = Record(
        unit=index,
        technique=choice.technique,
        rate=choice.rate,
        error=error,
        logit_error=logit_error,
        drop=drop,
        seconds=time.perf_counter() - began,
        layers=tuple(module_specs(variant, network.shape_of(source))),
        kept=restore.in_channels if isinstance(restore, nn.Conv2d) else 0,
        foldable=entry(variant) is not None,
    )
    data = save(variant.state_dict(), metadata={"record": msgspec.json.encode(record).decode()})
    write_bytes(context.folder / _file_name(index, choice), data)
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
        logits = torch.cat([rest(x) for x in probe[spec.places[place].after].split(images_at_once(spec))])
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


def _file_name(unit: int, choice: Choice) -> str:
    return f"{unit:03d}_{choice.technique}_{choice.rate:g}.safetensors"


def _read_record(folder: Path, unit: int, choice: Choice) -> Record | None:
    path = folder / _file_name(unit, choice)
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="numpy") as file:
            return msgspec.json.decode(file.metadata()["record"], type=Record)
    except (SafetensorError, KeyError, TypeError, msgspec.MsgspecError):
        return None  # of an older recipe or damaged: distilled again
