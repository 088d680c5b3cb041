"""Between the fronts, which speak the protocol, and the engine, which runs the models."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from modeltree.errors import NasError
from modeltree.outputs import Output
from modeltree.preprocessing import PictureRule, Preprocessing
from runtime.wire.protocol.tensors import LOGITS


class Busy(NasError):
    """No room for another request, or none that would be answered before its deadline. The device goes on alone."""


class UnknownModel(NasError):
    """The engine serves no model of that name."""


class Draining(NasError):
    """The server is shutting down: it ends what it has and takes nothing new."""


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """Shapes of one image, batch left out; both sides are float32.

    mean, std : per channel, of pixels scaled to 0..1, where the model takes whole images (channels, height, width): the
    fronts then take uint8 pixels too and hand on (pixel / 255 - mean) / std. None where it takes a feature map.
    rule : how a picture that comes as a file becomes such pixels.
    outputs : what is in the answer, where that is not logits.
    """

    shape_in: tuple[int, ...]
    shape_out: tuple[int, ...]
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    rule: PictureRule = field(default_factory=PictureRule)
    outputs: tuple[Output, ...] = ()

    @property
    def answers(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes, per image, of the tensors that a request without frames is answered with."""
        return {one.name: one.shape for one in self.outputs} or {LOGITS: self.shape_out}

    @property
    def preprocessing(self) -> Preprocessing | None:
        """All that is done to a picture in front of it; None where it takes none."""
        if self.mean is None or self.std is None or len(self.shape_in) != 3 or self.shape_in[0] != self.rule.count:
            return None
        height, width = self.shape_in[1:]
        return Preprocessing(height=height, width=width, mean=self.mean, std=self.std, rule=self.rule)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """`output` is (n, *shape_out), float32; `seconds` is what the engine took, waiting included."""

    output: np.ndarray
    seconds: float


class Engine(Protocol):
    """What answers. All of it may be called from many threads at once."""

    @property
    def models(self) -> Mapping[str, ModelInfo]:
        """What is served now, by name: the hash of the rest's block. Changes when a bundle is swapped."""
        ...

    def infer(self, model: str, x: np.ndarray, *, deadline_s: float | None) -> Answer:
        """What a model makes of a batch.

        Parameters
        ----------
        x : (n, *shape_in), float32, finite, n at least 1; perhaps read-only, and not to be kept.
        deadline_s : how long from now the caller still waits; None waits as long as it takes.

        Raises
        ------
        Busy : the queue is full, or cannot answer before the deadline. Draining : no new work.
        UnknownModel : it serves no such model. DataError : `x` does not fit. NasError : the model failed.
        """
        ...

    def ready(self) -> bool:
        """Whether it takes work: false while it loads and while it drains."""
        ...
