"""What an exit and a cut cost a task of so many images, as lines fitted to measurements [Song 2021, sec. II-A].

Every layer of every branch has three lines y = k x + b in the data size x: time on the device, time on the server, and
bytes of its output. An action (exit m, cut p) adds up the first p layers on the device and the others on the server.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from modeltree.errors import ConfigError, DataError, FormatError
from modeltree.files import write_bytes

COSTS_VERSION = 1
MOST_IMAGES = 10
"""Data sizes are 1 to 10 images [Song 2021, sec. IV-A]."""


class Line(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """y = k x + b. error : the largest share by which the line misses a measurement; 0 where it is exact."""

    k: float
    b: float = 0.0
    error: float = 0.0

    def __call__(self, x: float) -> float:
        """The line at x."""
        return self.k * x + self.b


class LayerLines(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A layer of a branch: f^0 (device_ms), f^1 (server_ms) and f^2 (out_bytes) of [Song 2021, sec. II-A]."""

    name: str
    device_ms: Line
    server_ms: Line
    out_bytes: Line


class Branch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A branch of the network: its layers up to an exit, head included. accuracy : 0..1, measured."""

    accuracy: float
    layers: tuple[LayerLines, ...]


class StreamCosts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All branches of a network on one kind of device and one server.

    origin : where the numbers come from, in words. in_bytes : of the task's images as they are sent at cut 0.
    """

    name: str
    origin: str
    in_bytes: Line
    branches: tuple[Branch, ...]
    version: int = COSTS_VERSION

    def __post_init__(self) -> None:
        if self.version != COSTS_VERSION:
            raise FormatError(f"version is {self.version}: we read {COSTS_VERSION}; measure the costs again")
        if not self.branches or any(not branch.layers for branch in self.branches):
            raise FormatError("a network of a stream must have at least one branch, and every branch a layer")

    def table(self) -> "ActionTable":
        """Every exit and every cut as an action; action 0 is not to run the task (m = 0)."""
        rows = [(0, 0, 0.0, *[0.0] * 6)]
        for number, branch in enumerate(self.branches, 1):
            for cut in range(len(branch.layers) + 1):
                here, there = branch.layers[:cut], branch.layers[cut:]
                crossing = self.in_bytes if cut == 0 else here[-1].out_bytes
                sums = (
                    *_sum([layer.device_ms for layer in here]), crossing.k, crossing.b,
                    *_sum([layer.server_ms for layer in there]),
                )  # fmt: skip
                rows.append((number, cut, branch.accuracy, *sums))
        columns = [np.array(column) for column in zip(*rows)]
        names = ("exit", "cut", "accuracy", "device_k", "device_b", "sent_k", "sent_b", "server_k", "server_b")
        ends = np.array([True, *(cut == len(b.layers) for b in self.branches for cut in range(len(b.layers) + 1))])
        return ActionTable(**dict(zip(names, columns)), on_device=ends)


def _sum(lines: Sequence[Line]) -> tuple[float, float]:
    return math.fsum(line.k for line in lines), math.fsum(line.b for line in lines)


@dataclass(frozen=True, kw_only=True, eq=False)
class ActionTable:
    """Actions (exit, cut) as arrays (actions,); action 0 does not run the task and costs nothing.

    exit : m, 0 for action 0. cut : p, layers on the device. accuracy : 0..1.
    device_*, server_* : milliseconds, sent_* : bytes, each k (an image) and b.
    on_device : whether everything, the exit's head too, runs on the device.

    Raises
    ------
    DataError : shapes differ, action 0 runs something, or a number that cannot be.
    """

    exit: np.ndarray
    cut: np.ndarray
    accuracy: np.ndarray
    device_k: np.ndarray
    device_b: np.ndarray
    sent_k: np.ndarray
    sent_b: np.ndarray
    server_k: np.ndarray
    server_b: np.ndarray
    on_device: np.ndarray

    def __post_init__(self) -> None:
        shapes = {field.name: np.shape(getattr(self, field.name)) for field in fields(self)}
        if len(set(shapes.values())) > 1 or len(self.exit.shape) != 1 or len(self.exit) < 2:
            raise DataError(f"a table of actions has {shapes}: give one number an action, at least two actions")
        if self.exit[0] or (self.exit[1:] < 1).any():
            raise DataError("action 0 must be not to run the task (exit 0), and no other may be")
        for name in ("device", "sent", "server"):
            values = np.stack([self.line(name, images) for images in (1, MOST_IMAGES)])
            if not (np.isfinite(values).all() and (values >= 0).all()) or values[:, 0].any():
                raise DataError(f"{name} of an action must be finite, at least 0, and 0 for action 0")
        if not ((self.accuracy >= 0) & (self.accuracy < 1)).all() or (self.accuracy[1:] == 0).any():
            raise DataError("accuracies must lie in 0..1, 1 not included, and be 0 for action 0 alone")

    def __len__(self) -> int:
        return len(self.exit)

    def line(self, name: str, images: float) -> np.ndarray:
        """(actions,): `device` or `server` milliseconds or `sent` bytes of so many images; 0 where nothing is done."""
        k, b = {
            "device": (self.device_k, self.device_b), "server": (self.server_k, self.server_b),
            "sent": (self.sent_k, self.sent_b),
        }[name]  # fmt: skip
        return np.asarray(k * images + b)

    def name(self, action: int) -> str:
        """An action in words."""
        if not action:
            return "not run"
        return f"exit {self.exit[action]}, cut {self.cut[action]}"


def encode_table(table: ActionTable) -> bytes:
    """A table as JSON, column by column; `load_table` reads it."""
    columns = {field.name: getattr(table, field.name).tolist() for field in fields(table)}
    return msgspec.json.format(msgspec.json.encode(columns), indent=1) + b"\n"


def load_table(path: Path) -> ActionTable:
    """Actions from a JSON file: costs layer by layer (`StreamCosts`), or a table as `encode_table` writes it.

    Raises
    ------
    DataError : it cannot be read. FormatError : it holds neither.
    """
    try:
        columns = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}: check the path") from error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise FormatError(f"{path} is no JSON of columns: {error}") from error
    if "branches" in columns:
        return load_costs(path).table()
    names = {field.name for field in fields(ActionTable)}
    if set(columns) != names:
        raise FormatError(f"{path} has {', '.join(sorted(columns))}: it must have exactly {', '.join(sorted(names))}")
    try:
        kinds = {"exit": np.int64, "cut": np.int64, "on_device": bool}
        return ActionTable(**{name: np.array(columns[name], dtype=kinds.get(name, np.float64)) for name in names})
    except (ValueError, TypeError, DataError) as error:
        raise FormatError(f"{path} holds no table of actions: {error}") from error


def fit_line(x: Sequence[float], y: Sequence[float]) -> Line:
    """The least-squares line through measurements; k and b are kept at 0 or above, for a time cannot be negative.

    Raises
    ------
    ConfigError : fewer than two sizes.
    """
    if len(set(x)) < 2 or len(x) != len(y):
        raise ConfigError(f"a line needs at least two sizes with one measurement each: {len(x)} and {len(y)} are given")
    a, values = np.stack([np.asarray(x, float), np.ones(len(x))], 1), np.asarray(y, float)
    k, b = np.linalg.lstsq(a, values, rcond=None)[0]
    if b < 0:
        k, b = float(a[:, 0] @ values / (a[:, 0] @ a[:, 0])), 0.0
    elif k < 0:
        k, b = 0.0, float(values.mean())
    missed = np.abs(a @ np.array([k, b]) - values) / np.maximum(np.abs(values), 1e-12)
    return Line(k=float(k), b=float(b), error=float(missed.max()))


def load_costs(path: Path) -> StreamCosts:
    """Costs from a JSON file.

    Raises
    ------
    DataError : it cannot be read. FormatError : it holds something else.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=StreamCosts)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}: check the path") from error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, FormatError) as error:
        raise FormatError(f"{path} holds no costs of a stream: {error}: run benchmarks/streams.py costs") from error


def save_costs(costs: StreamCosts, path: Path) -> None:
    """Write costs as JSON, whole or not at all."""
    write_bytes(path, msgspec.json.format(msgspec.json.encode(costs), indent=1) + b"\n")
