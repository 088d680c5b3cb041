"""Tasks of a stream: when they arrive, where, how large they are and until when they are of use [Song 2021, sec. II].

J_n = (D_n, tau_n, t_n^a): data size, deadline and arrival. Arrivals are Bernoulli: in every slot one with chance p, on
one of the devices; D is normal on 1..10 images; tau = k D slots.
"""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from modeltree.errors import ConfigError, DataError
from modeltree.streams.costs import MOST_IMAGES
from modeltree.units import ms_from_s

COLUMNS = ("arrival_s", "device", "images", "deadline_ms")
"""Columns of our own CSV files."""
_RAYCLOUDSIM = ("GenerationTime", "TaskSize", "DDL")
_SPREAD = 1.5


class Task(NamedTuple):
    """J_n. deadline_ms : tau, from the arrival on. device : where it arrives, from 0."""

    arrival_ms: float
    device: int
    images: int
    deadline_ms: float


@dataclass(frozen=True, kw_only=True)
class Arrivals:
    """How tasks come.

    p : chance of a task in a slot, in the whole system. k : slots of deadline an image. devices : that tasks fall on,
    each as often as the others. Of these the paper gives ranges in its figures 5 to 7; in text p = 0.1, k = 3, 3.
    slot_ms : the paper does not say how long a slot is; ours makes its figures' ranges of k reach from what only the
        first exit keeps to what the last one does.
    mean, spread : of the normal size, before it is rounded and cut to 1..10. The paper says "normally distributed
        between [1,10]"; the middle, and three deviations to either end, are our reading.
    """

    p: float = 0.1
    k: float = 3.0
    devices: int = 3
    slot_ms: float = 10.0
    mean: float = (1 + MOST_IMAGES) / 2
    spread: float = _SPREAD

    def __post_init__(self) -> None:
        if not 0 < self.p <= 1:
            raise ConfigError(f"p is {self.p}: the chance of a task in a slot must be above 0 and at most 1")
        for name in ("k", "slot_ms", "mean", "spread"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ConfigError(f"{name} is {value}: it must be finite and above 0")
        if self.devices < 1:
            raise ConfigError(f"devices is {self.devices}: it must be at least 1")

    def deadline_ms(self, images: float) -> float:
        """tau = k D slots."""
        return self.k * images * self.slot_ms

    def sizes(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """(count,), int64: data sizes."""
        return np.clip(np.rint(rng.normal(self.mean, self.spread, count)), 1, MOST_IMAGES).astype(np.int64)

    def draw(self, count: int, rng: np.random.Generator) -> list[Task]:
        """So many tasks, in order of arrival."""
        slots = np.cumsum(rng.geometric(self.p, count))
        devices, sizes = rng.integers(self.devices, size=count), self.sizes(count, rng)
        return [
            Task(float(slot) * self.slot_ms, int(device), int(size), self.deadline_ms(float(size)))
            for slot, device, size in zip(slots, devices, sizes)
        ]


def read_tasks(path: Path, *, devices: int, slot_ms: float) -> list[Task]:
    """Tasks from a CSV, in order of arrival: ours, or a task set of the simulator RayCloudSim.

    Ours has the columns `arrival_s,device,images,deadline_ms`. RayCloudSim's have `GenerationTime`, `TaskSize`, `DDL`
    and, in most, `SrcName`; the units are the simulator's own. One of its time units becomes a slot here, in arrivals
    and deadlines; its sizes are laid on 1 to 10 images, the file's smallest on 1 and its largest on 10; sources (where
    there are none, task after task) are dealt to the devices in the order they appear.

    Raises
    ------
    DataError : it cannot be read, lacks a column, or has a value that cannot be; names the line.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"cannot read {path}: {error}: pass a CSV of tasks") from error
    names = set(rows[0]) if rows else set()
    if set(COLUMNS) <= names:
        tasks = [_ours(row, path, line, devices) for line, row in enumerate(rows, 2)]
    elif set(_RAYCLOUDSIM) <= names:
        tasks = _theirs(rows, path, devices, slot_ms)
    else:
        raise DataError(
            f"{path} has the columns {', '.join(sorted(names)) or 'none'}: it must have {', '.join(COLUMNS)}, or "
            f"RayCloudSim's {', '.join(_RAYCLOUDSIM)}"
        )
    return sorted(tasks)


def _ours(row: dict[str, str], path: Path, line: int, devices: int) -> Task:
    numbers = _numbers(row, COLUMNS, path, line)
    device, images = int(numbers["device"]), int(numbers["images"])
    if not 0 <= device < devices or not 1 <= images <= MOST_IMAGES or not numbers["deadline_ms"]:
        raise DataError(
            f"{path}, line {line}: device {device}, {images} images, {numbers['deadline_ms']} ms: devices must be "
            f"0..{devices - 1}, images 1..{MOST_IMAGES}, the deadline above 0; pass more --devices, or split the task"
        )
    return Task(ms_from_s(numbers["arrival_s"]), device, images, numbers["deadline_ms"])


def _theirs(rows: list[dict[str, str]], path: Path, devices: int, slot_ms: float) -> list[Task]:
    found = [_numbers(row, _RAYCLOUDSIM, path, line) for line, row in enumerate(rows, 2)]
    sizes = np.array([row["TaskSize"] for row in found])
    spread = float(np.ptp(sizes)) or 1.0
    images = np.rint(1 + (MOST_IMAGES - 1) * (sizes - sizes.min()) / spread).astype(int)
    sources: dict[str, int] = {}
    dealt = [sources.setdefault(row.get("SrcName") or str(i), len(sources)) % devices for i, row in enumerate(rows)]
    return [
        Task(slot_ms * row["GenerationTime"], device, int(count), slot_ms * row["DDL"])
        for row, device, count in zip(found, dealt, images, strict=True)
    ]


def _numbers(row: dict[str, str], names: Sequence[str], path: Path, line: int) -> dict[str, float]:
    try:
        values = {name: float(row[name]) for name in names}
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}, line {line}: {error}: every column of a task must be a number") from error
    for name, value in values.items():
        if not (math.isfinite(value) and value >= 0):
            raise DataError(f"{path}, line {line}: {name} is {value}: it must be finite and at least 0")
    return values
