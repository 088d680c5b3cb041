"""What every front does with a request once it has read it, and what it says when it will not."""

import logging
import math
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from modeltree.errors import DataError, FormatError, NasError
from modeltree.outputs import taken_apart
from modeltree.preprocessing import normalised
from runtime.images import received
from runtime.server.fronts.admission import Limits, TooLarge, Unauthenticated
from runtime.server.interface import Busy, Draining, Engine, ModelInfo, UnknownModel
from runtime.wire.frames import Header, Kind, decode, picture_in, read_header
from runtime.wire.protocol.reasons import Reason
from runtime.wire.protocol.tensors import FRAME, LOGITS, PROBE, VERSION, Tensor, X

EXTENSIONS = ("binary_tensor_data", "model_repository(unload_disabled)")
"""Of the protocol, which every front speaks."""

_DECODING_S = 5.0
"""The longest wait for a processor that decodes a picture."""

_MOST_WORDS = 500
"""Characters of a sentence: gRPC sends it as a header, coded, and a client takes 8 KiB of those."""

_log = logging.getLogger(__name__)


class Late(NasError):
    """The deadline is over."""


@dataclass(frozen=True, kw_only=True)
class Answered:
    """`tensors` of the answer, `seconds` from having the request to having them, and `waiting_s`: the queue then."""

    tensors: tuple[Tensor, ...]
    seconds: float
    waiting_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Why not: the word for it, and a sentence."""

    reason: Reason
    message: str


_REASONS: tuple[tuple[type[NasError], Reason], ...] = (
    (Busy, Reason.BUSY), (Draining, Reason.DRAINING), (UnknownModel, Reason.UNKNOWN), (Late, Reason.LATE),
    (Unauthenticated, Reason.UNAUTHENTICATED), (TooLarge, Reason.TOO_LARGE),
    (FormatError, Reason.MALFORMED), (DataError, Reason.MALFORMED),
)  # fmt: skip


def refusal_of(error: Exception) -> Refusal:
    """What a device is told of an error; of one that nobody foresaw, nothing but that there was one."""
    for kind, reason in _REASONS:
        if isinstance(error, kind):
            return Refusal(reason=reason, message=str(error)[:_MOST_WORDS])
    if isinstance(error, NasError):
        _log.error("%s", error)
        return Refusal(reason=Reason.FAILED, message=str(error)[:_MOST_WORDS])
    _log.error("a request failed", exc_info=error)
    return Refusal(reason=Reason.FAILED, message="the server failed: its log says how")


class RequestHandler:
    """The engine's models as models of the protocol, whatever it is spoken over.

    max_bytes : of a request's numbers as float32, however few bytes they came in.

    As many pictures are decoded at a time as there are processors, so that memory is bounded, however many devices send
    some.
    """

    def __init__(self, engine: Engine, *, max_bytes: int = Limits.max_message_bytes) -> None:
        self._engine, self._max_bytes = engine, max_bytes
        self._decoding = threading.BoundedSemaphore(os.cpu_count() or 1)

    def ready(self) -> bool:
        """Whether the engine takes work."""
        return self._engine.ready()

    def models(self) -> list[str]:
        """Names of all models, sorted."""
        return sorted(self._engine.models)

    def model(self, name: str, version: str = "") -> ModelInfo:
        """Shapes of a model.

        Raises
        ------
        UnknownModel : there is none, or not in this version.
        """
        info = self._engine.models.get(name)
        if info is None or version not in ("", VERSION):
            which = f" version {version[:20]!r}" if version else ""
            raise UnknownModel(f"no model {name[:80]!r}{which}: see to it that device and server have the same bundle")
        return info

    def infer(
        self, model: str, version: str, inputs: Sequence[Tensor], outputs: Sequence[str], deadline_s: float | None
    ) -> Answered:
        """Answer a request.

        Parameters
        ----------
        inputs : one tensor, `x` or `frame`. outputs : names that are asked for; none asks for all.

        Raises
        ------
        NasError : see `Engine.infer`. FormatError : tensors are not what the model takes.
        """
        started = time.perf_counter()
        if deadline_s is not None and deadline_s <= 0:
            raise Late("the deadline was over when the request had arrived")
        if len(inputs) != 1:
            raise FormatError(f"the request has {len(inputs)} inputs: it must have one, {X!r} or {FRAME!r}")
        if model == PROBE:
            return Answered(tensors=(), seconds=time.perf_counter() - started, waiting_s=self._waiting_s())
        info = self.model(model, version)
        if not set(outputs) <= set(info.answers) or len(outputs) > len(info.answers):
            raise FormatError(
                f"the request asks for {[name[:40] for name in outputs[:4]]}: there is {', '.join(info.answers)} only"
            )
        x = self._batch(inputs[0], info, deadline_s)
        if deadline_s is not None:
            deadline_s -= time.perf_counter() - started
        output = self._engine.infer(model, x, deadline_s=deadline_s).output
        return Answered(
            tensors=_tensors(np.asarray(output, np.float32), info, inputs[0].name == FRAME, outputs),
            seconds=time.perf_counter() - started,
            waiting_s=self._waiting_s(),
        )  # fmt: skip

    def _waiting_s(self) -> float:
        """How long the engine's queue is; an engine that does not say has none."""
        return float(getattr(self._engine, "backlog_s", 0.0))

    def _batch(self, tensor: Tensor, info: ModelInfo, deadline_s: float | None) -> np.ndarray:
        if tensor.name != FRAME or tensor.datatype != "UINT8" or len(tensor.shape) != 1:
            return _plain(tensor, info.shape_in)
        header = _fitting(tensor.data, info, self._max_bytes)
        if not header.picture:
            return _coded(tensor.data, header, info)
        if not self._decoding.acquire(timeout=_DECODING_S if deadline_s is None else min(deadline_s, _DECODING_S)):
            raise Busy("the processors are busy with other pictures: try again later, or send fewer")
        try:
            return _pictured(tensor.data, header, info)
        finally:
            self._decoding.release()


def _tensors(output: np.ndarray, info: ModelInfo, framed: bool, wanted: Sequence[str]) -> tuple[Tensor, ...]:
    """The tensors of an answer: one of all outputs for our devices, which send frames, else each by its name."""
    if framed or not info.outputs:
        return (Tensor.of(LOGITS, output),)
    parts = taken_apart(output, info.outputs)
    return tuple(Tensor.of(name, np.ascontiguousarray(parts[name])) for name in wanted or parts)


def _plain(tensor: Tensor, shape_in: tuple[int, ...]) -> np.ndarray:
    """(n, *shape_in), float32, finite, from numbers as they are.

    Raises
    ------
    FormatError : something else.
    """
    if tensor.name != X or tensor.datatype != "FP32":
        raise FormatError(
            f"the input is {tensor.name[:40]!r}, {tensor.datatype} {list(tensor.shape)}: "
            f"it must be {X!r}, FP32, or {FRAME!r}, UINT8 with one size"
        )
    x = tensor.array()
    if x.shape[1:] != shape_in or x.shape[0] < 1:
        raise FormatError(f"the input has shape {list(x.shape)}: it must be [n, {str(list(shape_in))[1:-1]}], n from 1")
    if not np.isfinite(x).all():
        raise FormatError("the input has numbers that are not finite: send what the device's block really made")
    return x


def _fitting(frame: bytes | memoryview, info: ModelInfo, max_bytes: int) -> Header:
    """The header of a frame that a model takes.

    Raises
    ------
    FormatError : the frame is off, or holds something else. TooLarge : it holds more than could come uncoded.
    """
    header = read_header(frame)
    if header.shape[1:] != info.shape_in:
        raise FormatError(f"the frame holds {list(header.shape)}: it must hold [n, {str(list(info.shape_in))[1:-1]}]")
    if (size := 4 * math.prod(header.shape)) > max_bytes:
        raise TooLarge(f"the frame unfolds to {size} bytes: {max_bytes} at most; send fewer images at a time")
    return header


def _coded(frame: bytes | memoryview, header: Header, info: ModelInfo) -> np.ndarray:
    """(n, *shape_in), float32, finite, from a frame of numbers."""
    if not header.pixels:
        return decode(frame, shape=header.shape)
    if info.mean is None or info.std is None:
        raise FormatError("the frame holds pixels: this model takes a feature map in float32")
    pixels = decode(frame, shape=header.shape, dtype=np.uint8)
    return normalised(pixels, info.mean, info.std)


def _pictured(frame: bytes | memoryview, header: Header, info: ModelInfo) -> np.ndarray:
    """(1, *shape_in), float32, from a frame with a picture's file.

    Raises
    ------
    FormatError : the model takes no pictures. DataError : the file is off, or too large.
    """
    preprocessing = info.preprocessing
    if preprocessing is None:
        raise FormatError("the frame holds a picture: this model takes a feature map in float32")
    pixels = received(picture_in(frame, header), preprocessing, whole=header.kind is Kind.PICTURE)
    return preprocessing.normalised(pixels)[None]
