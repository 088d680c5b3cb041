"""Exit, cut and bits together: what every action costs and gives, as a table [Niu 2022]; from a tree's leaves, too."""

import math
from dataclasses import dataclass, field, fields
from functools import cached_property

import numpy as np

from modeltree.energy import Energy
from modeltree.errors import ConfigError, DataError
from modeltree.tree import ExitFork, ModelTree, Node, by_confidence
from modeltree.units import bytes_per_ms

FLOAT_BITS = 32
_WIDTHS = (*range(1, 17), FLOAT_BITS)
_WHOLE = ("exit", "cut", "bits", "leaf")


@dataclass(frozen=True, kw_only=True, eq=False)
class DecisionTable:
    """What every action a = (exit, cut, bits) [Niu 2022, eq. 6] costs and gives; independent of the link.

    Arrays are (actions,), become read-only copies, and are checked. Actions differ in (exit, cut, bits, leaf); some may
    do the same (bits mean nothing where nothing is sent), as in the paper's 3 x 21 x 3.

    exit : from 1, the earliest. cut : layers that stay on the device, from 0. bits : of a code, 1..16; 32 is float32.
    device_ms, cloud_ms : computing, coding included; measured or predicted.
    sent_bytes : on the wire, after entropy coding; 0 where the device does everything.
    accuracy : percent, measured through the exit and the coder.
    leaf : the node of a tree that ends the action's path; -1, also for all, where there is no tree.

    Raises
    ------
    DataError : shapes differ, no action, an action twice, or a number that cannot be; names the action.
    """

    exit: np.ndarray
    cut: np.ndarray
    bits: np.ndarray
    device_ms: np.ndarray
    cloud_ms: np.ndarray
    sent_bytes: np.ndarray
    accuracy: np.ndarray
    leaf: np.ndarray = field(default_factory=lambda: np.array(-1))

    def __post_init__(self) -> None:
        for column in fields(self):
            given = np.asarray(getattr(self, column.name))
            whole = column.name in _WHOLE
            if given.dtype.kind not in ("iu" if whole else "iuf"):
                kind = "whole numbers" if whole else "numbers"
                raise DataError(f"{column.name} of a decision table is {given.dtype}: it must be {kind}")
            if column.name == "leaf" and given.ndim == 0:
                given = np.full(self.exit.shape, given)
            values = np.array(given, dtype=np.int64 if whole else np.float64)
            values.setflags(write=False)
            object.__setattr__(self, column.name, values)
        self._check()

    def __len__(self) -> int:
        return len(self.exit)

    def name(self, action: int) -> str:
        """An action in words."""
        leaf = f", leaf {self.leaf[action]}" if self.leaf[action] >= 0 else ""
        return f"exit {self.exit[action]}, cut {self.cut[action]}, {self.bits[action]} bits{leaf}"

    def index(self, exit: int, cut: int, bits: int) -> int:
        """The number of an action; the first, where several leaves of a tree have these in common."""
        found = np.flatnonzero((self.exit == exit) & (self.cut == cut) & (self.bits == bits))
        if not found.size:
            raise ConfigError(f"exit {exit}, cut {cut}, {bits} bits is no action of the table: it has {len(self)}")
        return int(found[0])

    @cached_property
    def sends(self) -> np.ndarray:
        """(actions,), bool: whether anything is handed over."""
        return self.sent_bytes > 0

    @property
    def keys(self) -> np.ndarray:
        """(actions, 4), int64: exit, cut, bits and leaf, by which actions are told apart."""
        return np.stack([getattr(self, name) for name in _WHOLE], axis=1)

    def latency_ms(self, mbps: float, rtt_ms: float) -> np.ndarray:
        """(actions,): device, round trip, transfer and cloud; infinite for what must be sent while the link is out."""
        check_mbps(mbps)
        if not (math.isfinite(rtt_ms) and rtt_ms >= 0):
            raise ConfigError(f"rtt_ms is {rtt_ms}: it must be finite and at least 0")
        return self.device_ms + self.cloud_ms + np.where(self.sends, rtt_ms, 0.0) + self.transfer_ms(mbps)

    def transfer_ms(self, mbps: float) -> np.ndarray:
        """(actions,): time on the wire."""
        check_mbps(mbps)
        if mbps == 0:
            return np.where(self.sends, math.inf, 0.0)
        return np.asarray(self.sent_bytes / bytes_per_ms(mbps))

    def energy_mj(self, mbps: float, energy: Energy) -> np.ndarray:
        """(actions,): e [Niu 2022, eq. 3]; infinite for what must be sent while the link is out."""
        return energy.mj(self.device_ms, self.transfer_ms(mbps))

    def _check(self) -> None:
        shapes = {column.name: getattr(self, column.name).shape for column in fields(self)}
        if len(set(shapes.values())) > 1 or len(self.exit.shape) != 1 or not self.exit.size:
            raise DataError(f"a decision table has {shapes}: give every column one number an action, at least one")
        for name in ("device_ms", "cloud_ms", "sent_bytes", "accuracy", "cut"):
            values = getattr(self, name)
            self._refuse(~(np.isfinite(values) & (values >= 0)), name, "finite and at least 0")
        self._refuse(self.accuracy > 100, "accuracy", "a percentage, 0..100")
        self._refuse(self.exit < 1, "exit", "counted from 1")
        self._refuse(~np.isin(self.bits, _WIDTHS), "bits", "1..16, or 32 for float32")
        self._refuse((self.sent_bytes == 0) & (self.cloud_ms > 0), "cloud_ms", "0 where nothing is sent")
        self._refuse(self.device_ms + self.cloud_ms <= 0, "device_ms", "above 0 where the cloud does nothing")
        self._refuse(self.leaf < -1, "leaf", "the number of a node, or -1")
        _, first, place = np.unique(self.keys, axis=0, return_index=True, return_inverse=True)
        again = np.flatnonzero(first[place.reshape(-1)] != np.arange(len(self)))
        if again.size:
            raise DataError(f"{self.name(int(again[0]))} is in the table twice: keep one row an action")

    def _refuse(self, bad: np.ndarray, name: str, must: str) -> None:
        if bad.any():
            i = int(np.argmax(bad))
            raise DataError(f"action {i} ({self.name(i)}) has {name} {getattr(self, name)[i]}: it must be {must}")


def tree_table(tree: ModelTree) -> DecisionTable:
    """The leaves of a tree as actions, in the order of their nodes; those taken by confidence are none.

    exit : the number of an early exit, here or in the cloud, or one above them all for the end of the network.
    cut : the place of the hand-over; without one, where the path ends on the device: the exit's place or the last.
    bits : of the hand-over (8 for the input image); 32 where nothing is sent.
    device_ms : of the path's nodes, and of the heads that are asked for their confidence on the way. cloud_ms,
    sent_bytes, accuracy : of the leaf; what leaves early by confidence, and so costs less, is not reckoned with.

    Raises
    ------
    DataError : a leaf's numbers cannot be.
    """
    rows = [_row(tree, leaf) for leaf in tree.leaves() if not by_confidence(leaf)]
    names = ("exit", "cut", "bits", "device_ms", "cloud_ms", "sent_bytes", "accuracy", "leaf")
    return DecisionTable(**dict(zip(names, map(np.array, zip(*rows)))))


def _row(tree: ModelTree, end: Node) -> tuple[int, int, int, float, float, int, float, int]:
    assert end.leaf is not None
    path = tree.path(end.id)
    heads = [head for node in path[:-1] if (head := tree.confident(node.id)) is not None]
    device_ms = math.fsum(node.device_ms for node in (*path, *heads))
    last = len(tree.exits) + 1
    exit = end.fork.exit if isinstance(end.fork, ExitFork) else last
    if end.handover is not None:
        sent = end.handover
        return sent.exit or last, sent.place, sent.bits, device_ms, end.cloud_ms, sent.bytes, end.leaf.accuracy, end.id
    cut = tree.exits[exit - 1] if exit <= len(tree.exits) else tree.places[-1]
    return exit, cut, FLOAT_BITS, device_ms, 0.0, 0, end.leaf.accuracy, end.id


def check_mbps(mbps: float) -> None:
    """Raises ConfigError unless a bandwidth is finite and at least 0."""
    if not 0 <= mbps < math.inf:
        raise ConfigError(f"the bandwidth is {mbps} Mbit/s: it must be finite and at least 0")
