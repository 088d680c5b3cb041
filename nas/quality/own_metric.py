"""The user's own measure: a function in a file, `--metric file.py:name`.

    def iou(outputs, targets):          # a batch: {name: (n, ...) float32}; targets as the data has them
        ...
        return float                    # larger is better
    iou.range = (0.0, 1.0)              # what it can be: the ends become 0 and 100 % in rewards and tables
    iou.unit = "mean IoU"               # what a reader calls it

`targets` are labels, (n,) integers, with class folders; arrays, or a dict of them, where each picture has a file beside
it (`images:DIR`); else the base network's own outputs, a dict as `outputs` is.
"""

import functools
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from modeltree.errors import ConfigError, DataError
from modeltree.outputs import Output, taken_apart
from nas.bases.user_files import reason_of, run_file


@dataclass(frozen=True, kw_only=True)
class OwnMetric:
    """A function of the user's, by name, so that worker processes can find it too.

    code : sha256 of its file. low, high : its range. from_base : targets are the base network's answers.
    """

    spec: str
    code: str
    name: str
    low: float
    high: float
    outputs: tuple[Output, ...]
    from_base: bool = False
    chance: float | None = 0.0

    def scores(self, answers: torch.Tensor, targets: np.ndarray) -> np.ndarray:
        """The metric of the whole batch, for each image of it: (n,). answers, targets : (n, ...)."""
        wanted: Any = taken_apart(targets, self.outputs) if self.from_base else _stacked(targets)
        value = self._value(taken_apart(answers.numpy(), self.outputs), wanted)
        return np.full(len(answers), (value - self.low) / (self.high - self.low))

    def _value(self, outputs: Mapping[str, np.ndarray], targets: Any) -> float:
        try:
            value = float(_function(self.spec, self.code)(outputs, targets))
        except Exception as error:  # whatever a user's function raises
            raise DataError(f"metric {self.spec} failed with {reason_of(error)}: mend it") from error
        if not (math.isfinite(value) and self.low <= value <= self.high):
            raise DataError(
                f"metric {self.spec} gives {value:g}: it must be within its range, {self.low:g}..{self.high:g}"
            )
        return value


def own_metric(spec: str, outputs: Sequence[Output], *, from_base: bool) -> OwnMetric:
    """The metric of `file.py:name`.

    Raises
    ------
    ConfigError : no such file or function, or it has no range or unit.
    """
    path = Path(spec.rpartition(":")[0])
    if not path.is_file():
        raise ConfigError(f"metric is {spec!r}, and there is no file {path}: pass path/to/file.py:name")
    code = hashlib.sha256(path.read_bytes()).hexdigest()
    function = _function(spec, code)
    span, unit = getattr(function, "range", None), getattr(function, "unit", None)
    if not (isinstance(span, (tuple, list)) and len(span) == 2) or not -math.inf < span[0] < span[1] < math.inf:
        name = spec.rpartition(":")[2]
        raise ConfigError(f"metric {spec} has no range: write {name}.range = (low, high) below it, larger being better")
    if not isinstance(unit, str) or not unit:
        raise ConfigError(f"metric {spec} has no unit: write {spec.rpartition(':')[2]}.unit = 'mean IoU' below it")
    return OwnMetric(
        spec=spec, code=code, name=unit, low=float(span[0]), high=float(span[1]), outputs=tuple(outputs),
        from_base=from_base,
    )  # fmt: skip


@functools.lru_cache(8)
def _function(spec: str, code: str) -> Callable[[Any, Any], Any]:
    """The function, from the file as it was when its hash was taken."""
    path, _, name = spec.rpartition(":")
    function = vars(run_file(Path(path))).get(name)
    if not callable(function):
        raise ConfigError(f"{path} defines no function {name!r}: define it or name another one after the colon")
    return function


def _stacked(targets: np.ndarray) -> Any:
    """Targets of a batch as the user wrote them: one array, a list of unlike ones, or a dict of either."""
    if targets.dtype != object:
        return targets
    each = list(targets)
    if isinstance(each[0], dict):
        return {key: _together([one[key] for one in each]) for key in each[0]}
    return _together(each)


def _together(arrays: list[np.ndarray]) -> Any:
    return np.stack(arrays) if len({array.shape for array in arrays}) == 1 else arrays
