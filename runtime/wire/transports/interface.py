"""How a device hands a feature map to a server and gets an answer, whatever lies between.

TransportError           no answer; the device goes on alone
├── Unreachable          no connection, or one that broke
├── TimedOut             no whole answer in time
├── BusyError            the server has no room now, or shuts down
├── Refused              it says no: token, certificate, unknown model, too large, or it failed itself
└── Malformed            what came back is no answer to what was asked
"""

import itertools
import math
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType

import numpy as np

from modeltree.errors import ConfigError, DataError, FormatError, NasError
from runtime.wire.frames import encode
from runtime.wire.pictures import PictureToSend
from runtime.wire.protocol.reasons import Reason
from runtime.wire.protocol.tensors import FRAME, PROBE, Tensor, checksum

MAX_REPLY_BYTES = 16 * 2**20
"""Larger answers are not read: logits take kilobytes."""


class TransportError(NasError):
    """No answer from the server."""


class Unreachable(TransportError):
    """No connection, or one that broke before the answer was whole."""


class TimedOut(TransportError):
    """No whole answer in time; one that comes later is dropped."""


class BusyError(TransportError):
    """The server has no room now, or shuts down."""


class Refused(TransportError):
    """The server says no, or its certificate or ours does not pass."""


class Malformed(TransportError):
    """What came back is no answer to what was asked."""


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """What one request cost.

    seconds : from the first byte sent to the answer read. server_s : of these, the server's own from having all of the
    request to having the answer; 0 where it does not say. Bytes are of messages, and in REST of HTTP's headers too.
    waiting_s : how long the server's queue was when it answered; None where it does not say.
    """

    sent_bytes: int
    received_bytes: int
    seconds: float
    server_s: float
    waiting_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class Reply(Exchange):
    """`output` is (n, ...) float32, finite; `encode_s` went into coding, before `seconds` began."""

    output: np.ndarray
    encode_s: float


@dataclass(frozen=True, kw_only=True)
class Description:
    """A model's tensors as (name, type, shape with -1 for any), from the server's metadata."""

    inputs: tuple[tuple[str, str, tuple[int, ...]], ...]
    outputs: tuple[tuple[str, str, tuple[int, ...]], ...]


@dataclass(frozen=True, kw_only=True)
class Response:
    """An answer as it came, nothing checked but that the protocol allows it.

    checksum : of its tensors, as the server says; None where it does not, as servers that are not ours do not.
    """

    request_id: str
    model: str
    tensors: Sequence[Tensor]
    server_s: float | None
    sent_bytes: int
    received_bytes: int
    checksum: int | None = None
    waiting_s: float | None = None


class Transport(ABC):
    """A server that can be asked; from several threads at once.

    frames : whether the server knows our coded frames. False for any other server of the protocol: everything is sent
    as float32 under the name that the model's metadata gives, which is asked for once.
    """

    def __init__(self, *, frames: bool = True, clock: Callable[[], float] = time.monotonic) -> None:
        self.frames, self._clock = frames, clock
        self._prefix, self._count = secrets.token_hex(4), itertools.count(1)
        self._names: dict[str, str] = {}

    def infer(
        self, model: str, x: np.ndarray | PictureToSend, *, bits: int, timeout_s: float,
        shape_out: tuple[int, ...] | None = None, coding_s: float = 0.0,
    ) -> Reply:  # fmt: skip
        """What a model of the server makes of a batch.

        Parameters
        ----------
        x : (n, ...), float32; or uint8 pixels, with 8 bits; or one picture's file, where the server knows `frames`.
        bits : of a number; 32 sends float32 as it is.
        shape_out : of one image's answer, where known; an answer of another shape is refused.
        coding_s : seconds that coding takes at least, the rest of them slept: a slower device is played.

        Raises
        ------
        TransportError : there is no answer; which kind says why. ConfigError, DataError : an argument is off.
        """
        until = self._until(timeout_s)
        started = self._clock()
        tensor = self._tensor(model, x, bits, until)
        if (rest_s := min(started + coding_s, until) - self._clock()) > 0:
            time.sleep(rest_s)
        begun = self._clock()
        response, cost = self._exchange(model, tensor, until)
        output = _output(response, 1 if isinstance(x, PictureToSend) else len(x), shape_out)
        return Reply(output=output, encode_s=begun - started, **cost)

    def probe(self, size_bytes: int, timeout_s: float) -> Exchange:
        """Send so many bytes to learn what the link carries; they are thrown away there.

        Raises
        ------
        TransportError : no answer.
        """
        until = self._until(timeout_s)
        payload = np.frombuffer(secrets.token_bytes(size_bytes), np.uint8)
        response, cost = self._exchange(PROBE, Tensor.of(FRAME, payload), until)
        if response.tensors:
            raise Malformed(f"the probe was answered with {len(response.tensors)} tensors: there must be none")
        return Exchange(**cost)

    @abstractmethod
    def ready(self, timeout_s: float) -> bool:
        """Whether the server takes work. Raises TransportError where it cannot be asked."""

    @abstractmethod
    def describe(self, model: str, timeout_s: float) -> Description:
        """A model's metadata. Raises TransportError where there is none."""

    @abstractmethod
    def close(self) -> None:
        """Close every connection; calls in flight fail, later ones too. May be called again."""

    @abstractmethod
    def _send(self, model: str, request_id: str, tensor: Tensor, until: float) -> Response:
        """Ask, and wait until a moment of the clock."""

    def _exchange(self, model: str, tensor: Tensor, until: float) -> tuple[Response, dict]:
        request_id = f"{self._prefix}-{next(self._count)}"
        begun = self._clock()
        try:
            response = self._send(model, request_id, tensor, until)
        except FormatError as error:
            raise Malformed(f"the server's answer is malformed: {error}") from error
        ended = self._clock()
        if ended > until:
            raise TimedOut(f"the answer came {1e3 * (ended - until):.0f} ms late: it is dropped")
        if response.request_id != request_id:
            raise Malformed(f"the answer is to {response.request_id[:40]!r}: it must be to {request_id!r}")
        if response.model not in (model, ""):
            raise Malformed(f"the answer is of model {response.model[:40]!r}: it must be of {model!r}")
        if response.checksum is not None and response.checksum != checksum(response.tensors):
            raise Malformed("the answer has another checksum than its bytes: it was damaged; ask again")
        server_s = 0.0 if response.server_s is None else response.server_s
        if not 0 <= server_s < math.inf:
            raise Malformed(f"the server says that it took {server_s} s: it must be a time from 0 up")
        if response.waiting_s is not None and not 0 <= response.waiting_s < math.inf:
            raise Malformed(f"the server says that its queue takes {response.waiting_s} s: it must be a time from 0 up")
        return response, {
            "sent_bytes": response.sent_bytes, "received_bytes": response.received_bytes,
            "seconds": ended - begun, "server_s": min(server_s, ended - begun), "waiting_s": response.waiting_s,
        }  # fmt: skip

    def _until(self, timeout_s: float) -> float:
        if not 0 < timeout_s < math.inf:
            raise ConfigError(f"timeout_s is {timeout_s}: it must be above 0 and finite")
        return self._clock() + timeout_s

    def _tensor(self, model: str, x: np.ndarray | PictureToSend, bits: int, until: float) -> Tensor:
        if isinstance(x, PictureToSend):
            return Tensor.of(FRAME, np.frombuffer(x.frame(), np.uint8))
        if self.frames:  # floats as they are too: a frame has a checksum
            return Tensor.of(FRAME, np.frombuffer(encode(x, bits), np.uint8))
        if x.dtype != np.float32 or x.ndim < 2 or x.size == 0:
            raise DataError(f"the input is {x.dtype} {x.shape}: as it is, it must be float32 (n, ...); convert it")
        return Tensor.of(self._name(model, until), x)

    def _name(self, model: str, until: float) -> str:
        """What another server's model calls its input."""
        if model not in self._names:
            inputs = self.describe(model, max(until - self._clock(), 1e-3)).inputs
            inputs = tuple(one for one in inputs if one[0] != FRAME)
            if len(inputs) != 1 or inputs[0][1] != "FP32":
                raise Refused(f"model {model} of the server takes {inputs}: it must take one FP32 tensor")
            self._names[model] = inputs[0][0]
        return self._names[model]

    def __enter__(self) -> "Transport":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _output(response: Response, images: int, shape_out: tuple[int, ...] | None) -> np.ndarray:
    """The tensors of an answer as one array of its own: one as it is, several flattened one behind the other.

    Raises
    ------
    Malformed : none, one of another type or shape, or with numbers that are not finite.
    """
    tensors = response.tensors
    several = len(tensors) > 1 and shape_out is not None and all(one.shape[:1] == (images,) for one in tensors)
    if not (several or len(tensors) == 1) or any(one.datatype != "FP32" for one in tensors):
        raise Malformed(f"the answer has {[t.datatype for t in tensors]}: it must have one FP32 tensor")
    array = tensors[0].array()
    if several:
        array = np.concatenate([one.array().reshape(images, -1) for one in tensors], 1)
    asked = (images, *(array.shape[1:] if shape_out is None else shape_out))
    if array.shape != asked or array.size == 0:
        raise Malformed(f"the answer has shape {array.shape}: it must have {asked}")
    if not np.isfinite(array).all():
        raise Malformed("the answer has numbers that are not finite: the model or the server is broken")
    return array.copy()


def refusal(reason: Reason, message: str) -> TransportError:
    """The error for what a server gave as its reason."""
    kinds = {Reason.BUSY: BusyError, Reason.DRAINING: BusyError, Reason.LATE: TimedOut}
    said = "".join(one if one.isprintable() else "?" for one in message[:500])  # it may end at a terminal
    return kinds.get(reason, Refused)(f"the server refuses ({reason.word}): {said}")
