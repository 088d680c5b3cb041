"""Policies that choose exit, cut and bits at run time [Niu 2022]; numpy only, so that a device can run them.

All share one interface: `choose(state, among)` gives the number of an action of the `Decisions` they were made for.
They keep nothing between calls. The exact rule is the default: it looks at every action, and the paper's 189 take it
microseconds. Trained policies lie in files (runtime.selection.policy_files).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from modeltree.errors import ConfigError, DataError, FormatError, unknown
from modeltree.offloading.decisions import Decisions, Reward, State, tree_table
from modeltree.tree import ModelTree
from runtime.selection import policy_files
from runtime.selection.policy_files import PolicyFile, PolicyHeader

_OBSERVED = 4
_ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "relu": lambda x: np.maximum(x, 0.0, out=x), "tanh": lambda x: np.tanh(x, out=x),
}  # fmt: skip


class Policy(Protocol):
    """Chooses an action."""

    def choose(self, state: State, among: np.ndarray | None = None) -> int:
        """The number of the action to take in a state.

        among : (actions,), bool: the only ones that may be taken now, such as the leaves below a node, or what a
            battery leaves; at least one.
        """
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Exact:
    """The action of the highest reward at this bandwidth."""

    decisions: Decisions

    def choose(self, state: State, among: np.ndarray | None = None) -> int:
        """Looks at the bandwidth alone; among : (actions,), bool."""
        return self.decisions.best(state.mbps, among=among)


@dataclass(frozen=True, kw_only=True, eq=False)
class Greedy:
    """The fastest action at this bandwidth within the energy budget, whatever its accuracy, as in Neurosurgeon."""

    decisions: Decisions

    def choose(self, state: State, among: np.ndarray | None = None) -> int:
        """Looks at the bandwidth alone; among : (actions,), bool."""
        return self.decisions.highest(-self.decisions.latency_ms(state.mbps), state.mbps, among=among)


class Fixed:
    """One action, always; the yardsticks `on_device` and `cloud_only` are made of it. No budget stops it."""

    def __init__(self, decisions: Decisions, action: int) -> None:
        if not 0 <= action < len(decisions):
            raise ConfigError(f"action is {action}: it must be in 0..{len(decisions) - 1}, the actions of the table")
        self.action = action
        table = decisions.table
        apart = [np.abs(column - column[action]) for column in (table.sends.astype(int), table.exit, table.cut)]
        bits = np.abs(table.bits - table.bits[action])
        self._nearest = np.lexsort((table.device_ms, bits, apart[2], apart[1], apart[0]))

    def choose(self, state: State, among: np.ndarray | None = None) -> int:
        """Looks at nothing. Where the action is not `among` those allowed, (actions,), the one most like it.

        Most like it: that sends, too, or does not, either; then of the nearest exit, cut and bits; then the fastest.
        """
        if among is None or among[self.action]:
            return self.action
        return int(self._nearest[among[self._nearest].argmax()])


def on_device(decisions: Decisions) -> Fixed:
    """Everything on the device, through the last exit: the paper's "On Device". Of equals, the fastest.

    Raises
    ------
    ConfigError : every action of the table sends something.
    """
    table = decisions.table
    if table.sends.all():
        raise ConfigError("every action of the table sends something: add one with sent_bytes 0 to stay on the device")
    order = np.lexsort((table.device_ms, -table.exit, table.sends))
    return Fixed(decisions, int(order[0]))


def cloud_only(decisions: Decisions) -> Fixed:
    """Everything in the cloud: the earliest cut that sends, then the last exit, then the most bits.

    Raises
    ------
    ConfigError : no action of the table sends anything.
    """
    table = decisions.table
    if not table.sends.any():
        raise ConfigError("no action of the table sends anything: add one with sent_bytes above 0 to use the cloud")
    order = np.lexsort((-table.bits, -table.exit, table.cut, ~table.sends))
    return Fixed(decisions, int(order[0]))


class Dense:
    """Fully connected layers with ReLU (or tanh) between them, as plain float32 arrays.

    weights : one (in, out) a layer. biases : one (out,) a layer. activation : `relu` or `tanh`; not among `arrays`.

    Raises
    ------
    DataError : no layer, shapes that do not follow on one another, or a number that is not finite.
    ConfigError : an unknown activation.
    """

    def __init__(self, weights: Sequence[np.ndarray], biases: Sequence[np.ndarray], activation: str = "relu") -> None:
        if activation not in _ACTIVATIONS:
            raise unknown("activation", activation, _ACTIVATIONS)
        self.activation = activation
        self._between = _ACTIVATIONS[activation]
        if not weights or len(weights) != len(biases):
            raise DataError(
                f"a network has {len(weights)} weights and {len(biases)} biases: give as many, at least one"
            )
        before = None
        for i, (weight, bias) in enumerate(zip(weights, biases)):
            if weight.ndim != 2 or bias.shape != weight.shape[1:] or before not in (None, len(weight)):
                raise DataError(
                    f"layer {i} has weights {weight.shape} and biases {bias.shape} after {before} numbers: it must "
                    "have (in, out) and (out,), in being what the layer before gives"
                )
            if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
                raise DataError(f"layer {i} has a number that is not finite: train the network again")
            before = weight.shape[1]
        self.weights = tuple(np.ascontiguousarray(w, dtype=np.float32) for w in weights)
        self.biases = tuple(np.ascontiguousarray(b, dtype=np.float32) for b in biases)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """(..., in) to (..., out)."""
        last = len(self.weights) - 1
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases)):
            x = x @ weight + bias
            if i < last:
                self._between(x)
        return x

    def arrays(self) -> dict[str, np.ndarray]:
        """The network by name, for `numpy.savez`; `from_arrays` takes it back."""
        layers = enumerate(zip(self.weights, self.biases))
        return {f"{kind}{i}": array for i, pair in layers for kind, array in zip(("weight", "bias"), pair)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], activation: str = "relu") -> "Dense":
        """A network from named arrays, such as `numpy.load(path, allow_pickle=False)` gives.

        Raises
        ------
        DataError : a name or a shape is not what `arrays` writes.
        """
        layers = len(arrays) // 2
        names = {f"{kind}{i}" for i in range(layers) for kind in ("weight", "bias")}
        if set(arrays) != names:
            raise DataError(f"a network's arrays are {sorted(arrays)}: they must be weight0, bias0, weight1, ...")
        loaded = {name: np.asarray(arrays[name]) for name in names}
        for name, array in loaded.items():
            if array.dtype != np.float32:
                raise DataError(f"{name} of a network is {array.dtype}: it must be float32")
        weights, biases = ([loaded[f"{kind}{i}"] for i in range(layers)] for kind in ("weight", "bias"))
        return cls(weights, biases, activation)


@dataclass(frozen=True, kw_only=True, eq=False)
class Trained:
    """What a network learnt: the action it scores highest, among those within the energy budget.

    The paper leaves the budget to the reward; looking here as well costs microseconds and makes it hold for certain.

    Raises
    ------
    ConfigError : the network does not map a state to one score an action of the table.
    """

    decisions: Decisions
    network: Dense

    def __post_init__(self) -> None:
        takes, gives = len(self.network.weights[0]), len(self.network.biases[-1])
        if (takes, gives) != (_OBSERVED, len(self.decisions)):
            raise ConfigError(
                f"the network maps {takes} numbers to {gives}: it must map a state's {_OBSERVED} to the table's "
                f"{len(self.decisions)} actions; train one for this table"
            )

    def choose(self, state: State, among: np.ndarray | None = None) -> int:
        """Looks at the whole state; among : (actions,), bool."""
        scores = self.network(self.decisions.observe(state))
        return self.decisions.highest(scores, state.mbps, among=among)


def write_policy(path: str | Path, policy: Trained, *, agent: str, seed: int, trained_on: str) -> None:
    """Write a trained policy and the problem it was trained for, whole or not at all.

    agent : which one learnt it, such as `sac`. seed : of its training. trained_on : the link, in words.
    """
    decisions = policy.decisions
    objective, reward = (
        (None, decisions.objective) if isinstance(decisions.objective, Reward) else (decisions.objective, None)
    )
    header = PolicyHeader(
        agent=agent, seed=seed, trained_on=trained_on, rtt_ms=decisions.rtt_ms, energy=decisions.energy,
        objective=objective, reward=reward,
        budget_mj=decisions.budget_mj if math.isfinite(decisions.budget_mj) else None,
    )  # fmt: skip
    policy_files.save(Path(path), PolicyFile(header, decisions.table.keys, policy.network.arrays()))


def read_policy(path: str | Path, tree: ModelTree) -> Trained:
    """A policy from a file, for the tree it was trained on; round trip, energy, objective and budget are the file's.

    Raises
    ------
    DataError : the file cannot be read. FormatError : it is not a policy, or one for another tree: their actions
        (exit, cut, bits, leaf) are not the same.
    """
    path = Path(path)
    header, actions, arrays = policy_files.load(path)
    table = tree_table(tree)
    if not np.array_equal(actions, table.keys):
        raise FormatError(
            f"{path} chooses among {len(actions)} actions, the tree has {len(table)}, and they must be the same, in "
            "exit, cut, bits and leaf: train a policy for this tree with `nas policy train`"
        )
    objective = header.objective or header.reward
    assert objective is not None  # the header has checked it
    try:
        decisions = Decisions(
            table=table, rtt_ms=header.rtt_ms, energy=header.energy, objective=objective,
            budget_mj=math.inf if header.budget_mj is None else header.budget_mj,
        )  # fmt: skip
        return Trained(decisions=decisions, network=Dense.from_arrays(arrays))
    except (ConfigError, DataError) as error:
        raise FormatError(f"{path} is not a policy: {error}") from error
