"""An engine in the same process, asked as if it were far away: coded, decoded, checked, and dropped when late."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from typing import TypeVar

from runtime.server.fronts.request_handler import RequestHandler, refusal_of
from runtime.server.interface import Engine
from runtime.wire.protocol.tensors import FRAME, LOGITS, Tensor, X
from runtime.wire.transports.interface import (
    Description,
    Response,
    TimedOut,
    Transport,
    Unreachable,
    refusal,
)

_T = TypeVar("_T")


class InProcessTransport(Transport):
    """Asks an engine directly. Bytes are counted as those of the tensors."""

    def __init__(self, engine: Engine, *, clock: Callable[[], float] = time.monotonic, threads: int = 32) -> None:
        super().__init__(clock=clock)
        self._handler = RequestHandler(engine)
        self._calls = ThreadPoolExecutor(threads, "nas-in-process")
        self._closed = False

    def ready(self, timeout_s: float) -> bool:
        return self._ask(self._handler.ready, self._until(timeout_s))

    def describe(self, model: str, timeout_s: float) -> Description:
        info = self._ask(lambda: self._handler.model(model), self._until(timeout_s))
        return Description(
            inputs=((X, "FP32", (-1, *info.shape_in)), (FRAME, "UINT8", (-1,))),
            outputs=((LOGITS, "FP32", (-1, *info.shape_out)),),
        )

    def close(self) -> None:
        self._closed = True
        self._calls.shutdown(wait=False, cancel_futures=True)

    def _send(self, model: str, request_id: str, tensor: Tensor, until: float) -> Response:
        answered = self._ask(lambda: self._handler.infer(model, "", [tensor], [], until - self._clock()), until)
        return Response(
            request_id=request_id, model=model, tensors=answered.tensors, server_s=answered.seconds,
            sent_bytes=len(tensor.data), received_bytes=sum(len(one.data) for one in answered.tensors),
        )  # fmt: skip

    def _ask(self, what: Callable[[], _T], until: float) -> _T:
        if self._closed:
            raise Unreachable("this transport is closed: open another")
        try:
            return self._calls.submit(what).result(timeout=max(0.0, until - self._clock()))
        except NotYet as error:
            raise TimedOut("no answer in time: the engine is slow, or waits for others") from error
        except Exception as error:
            refused = refusal_of(error)
            raise refusal(refused.reason, refused.message) from error
