"""A tiny real network, exported and analysed; a library of records for it that nothing was distilled for; scenarios."""

import functools
import itertools
from pathlib import Path

import numpy as np
import torch
from torch import nn

from compile.program_file import program_bytes
from modeltree.link.bandwidth import BandwidthTypes
from modeltree.link.transfer_time import TransferModel
from modeltree.profiles import load_profile
from modeltree.reward import Reward
from nas.compression.distillation import DistilConfig
from nas.compression.library import Library, Record, build_library, candidates
from nas.compression.predictor import Predictor
from nas.jobs.executors import SerialExecutor
from nas.treesearch.space import Scenario
from transforms import Network, analyse, export, technique
from transforms.compose import entry
from transforms.graph.describe import module_specs

INPUT = (3, 16, 16)
CLASSES = 5
TINY = DistilConfig(steps=4, batch_size=32)


class Tiny(nn.Sequential):
    """Three convolutions (one with batch norm) and two linear layers: 3x16x16 to 5 classes."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(32 * 16, 48), nn.ReLU(),
            nn.Linear(48, CLASSES),
        )  # fmt: skip


@functools.cache
def tiny_program() -> torch.export.ExportedProgram:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return export(Tiny().eval(), INPUT)


@functools.cache
def tiny() -> Network:
    return analyse(tiny_program())


def images(count, seed=0):
    """Random images and labels."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randn(count, *INPUT, generator=generator)
    return pixels, torch.randint(0, CLASSES, (count,), generator=generator).numpy()


def made_library(names=("svd", "gap", "mobilenet", "prune"), *, network=None):
    """Records as distillation would leave them; their errors grow with what a variant saves."""
    network = network or tiny()
    wanted, declined = candidates(network, names)
    records = {}
    for index, choice in wanted:
        unit = network.units[index]
        variant = technique(choice.technique).structure(unit, choice.rate)
        given = unit.in_shape if variant.body is None else variant.body.in_shape
        error = 0.02 / choice.rate
        records[(index, choice)] = Record(
            unit=index, technique=choice.technique, rate=choice.rate, error=error, logit_error=error, drop=20 * error,
            seconds=0.0, layers=tuple(module_specs(variant, given)),
            kept=variant.restore.in_channels if isinstance(variant.restore, nn.Conv2d) else 0,
            foldable=entry(variant) is not None, settled=True,
        )  # fmt: skip
    return Library(folder=Path("nowhere"), records=records, declined=declined)


def made_predictor(library):
    """Damage as the records' errors say, in thousandths."""
    damage = {key: round(1000 * record.logit_error) for key, record in library.records.items()}
    return Predictor(damage=damage, table=90.0 - 30.0 * np.arange(801) / 800)


def scenario(*, mbps=(1.0, 20.0), device="phone", forks=None):
    k = len(mbps)
    even = (1 / k,) * k
    types = BandwidthTypes(
        representative_mbps=mbps, edges_mbps=tuple((a + b) / 2 for a, b in itertools.pairwise(mbps)),
        transition=forks or (even,) * k, initial=even,
    )  # fmt: skip
    return Scenario(
        device=load_profile(device), cloud=load_profile("cloud_gpu"), types=types, transfer=TransferModel(rtt_ms=2.0),
        reward=Reward(),
    )  # fmt: skip


def build(folder: Path, *, names=("svd", "gap", "prune"), config=TINY, executor=None, count=64, **rest):
    """A real library of the tiny network on random images."""
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "base.pt2"
    if not program.exists():
        program.write_bytes(program_bytes(tiny_program()))
    probe, labels = images(32, seed=1)
    return build_library(
        tiny(), program, folder / "library", images(count)[0], (probe, labels), executor or SerialExecutor(),
        names=names, config=config, **rest,
    )  # fmt: skip
