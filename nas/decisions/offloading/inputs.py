"""What `nas policy` works on: a tree's actions, its device's energy, and the bandwidths of a link or a sweep."""

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from modeltree.errors import ConfigError, DataError, unknown
from modeltree.offloading.decisions import Decisions, Energy, Objective, Reward, tree_decisions
from modeltree.profiles import PROFILES, load_profile
from modeltree.tree import ModelTree, decode_tree
from nas.names import ACTIONS
from runtime.execution.bundle import Bundle, is_bundle

OBJECTIVES: dict[str, type[Objective | Reward]] = {"wang": Reward, "niu": Objective}
"""[Wang 2020, eq. 7], as the tree was searched for, and [Niu 2022, eq. 14]."""

_MOST = 100_001


class Sweep(NamedTuple):
    """Bandwidths in Mbit/s, evenly from `low` to `high`."""

    low: float
    high: float
    step: float

    def mbps(self) -> np.ndarray:
        """Both ends included, as far as the step allows."""
        count = math.floor((self.high - self.low) / self.step + 1e-9) + 1
        return self.low + self.step * np.arange(count)


def parse_sweep(text: str) -> Sweep:
    """`LOW:HIGH` or `LOW:HIGH:STEP` in Mbit/s; the step is a hundredth of the way unless given.

    Raises
    ------
    ConfigError : not that, or more bandwidths than anybody can want.
    """
    try:
        numbers = [float(part) for part in text.split(":")]
        low, high = numbers[:2]
        step = numbers[2] if len(numbers) == 3 else (high - low) / 100
    except ValueError as error:
        raise ConfigError(f"--sweep is {text!r}: it must be LOW:HIGH or LOW:HIGH:STEP in Mbit/s, 0:80:1 say") from error
    if not (len(numbers) <= 3 and 0 <= low < high < math.inf and 0 < step <= high and (high - low) / step < _MOST):
        raise ConfigError(f"--sweep is {text!r}: it must rise from 0 or more, in at most {_MOST - 1} steps")
    return Sweep(low, high, step)


def read_tree(path: Path, method: str | None = None) -> tuple[ModelTree, Path]:
    """A tree, and the file it lies in: a tree's JSON; or a run's, its method's, or, if it is there, its `ACTIONS`'s.

    Raises
    ------
    ConfigError : no file, run or bundle, or the run has no such method. FormatError : the file is no tree.
    """
    if path.is_dir() and is_bundle(path):
        if method is not None:
            raise ConfigError(f"{path} is a bundle, which has one tree: leave --method out, or pass the run")
        return Bundle.open(path).manifest.tree, path
    file = path
    if path.is_dir():
        methods = {one.stem: one for one in sorted((path / "methods").glob("*.json"))}
        if method is not None and method not in methods:
            raise unknown("method of this run", method, methods)
        file = methods[method] if method is not None else methods.get(ACTIONS, path / "tree.json")
    try:
        return decode_tree(file.read_bytes(), str(file)), file
    except OSError as error:
        raise ConfigError(
            f"cannot read {file}: {error.strerror or error}: pass a tree's JSON, a bundle, or a run with a tree"
        ) from error


def device_energy(tree: ModelTree, device: str | None = None) -> tuple[Energy, str]:
    """What computing and sending take on the tree's device, or on a profile, and in words where that is from.

    Raises
    ------
    ConfigError, DataError, FormatError : the profile that was asked for is not one. DataError : it has no energy.
    """
    if device is None and tree.device not in PROFILES:
        return Energy(), f"the default (there is no shipped profile {tree.device}; pass --device)"
    profile = load_profile(tree.device if device is None else device)
    if profile.energy is not None:
        return profile.energy, f"profile {profile.name}"
    if device is not None:
        raise DataError(f"profile {profile.name} has no energy: add it, see docs/profiles-and-traces.md")
    return Energy(), f"the default (profile {profile.name} has none; pass --device)"


def decisions_of(
    tree: ModelTree, *, energy: Energy, objective: str, rtt_ms: float | None, budget_mj: float | None
) -> Decisions:
    """A tree's decision problem, as the command line says it.

    Raises
    ------
    ConfigError : an unknown objective, or a number that cannot be. DataError : the tree's leaves are no actions.
    """
    if objective not in OBJECTIVES:
        raise unknown("objective", objective, OBJECTIVES)
    return tree_decisions(
        tree, energy=energy, objective=tree.reward if objective == "wang" else Objective(), rtt_ms=rtt_ms,
        budget_mj=math.inf if budget_mj is None else budget_mj,
    )  # fmt: skip
