"""The engine: the rests of a bundle behind one bounded queue, run in batches by a few workers.

infer ──▶ Waiting ──▶ worker: gather, run, hand out ──▶ infer goes on
  Busy at once when full or too late          a batch that fails is run again one by one

Two generations of models are served at once: after a swap, what only the bundle before had stays for a while, for
devices that still run it.
"""

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

from modeltree.errors import ConfigError, DataError, NasError, unknown
from runtime.execution.bundle import Bundle
from runtime.execution.native import available_cpus
from runtime.execution.processor import chosen_target
from runtime.server.engine.batch_queue import Request, Retired, Waiting
from runtime.server.engine.batch_runner import run
from runtime.server.engine.model import BundleModel, Model
from runtime.server.engine.onnx_model import OnnxModel
from runtime.server.interface import Answer, Busy, Draining, ModelInfo, UnknownModel
from runtime.server.metrics import EngineMeasures

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

DRAIN_S = 30.0
LONGEST_S = 600.0
"""No request without a deadline, and no loading of models, is waited for any longer."""
BACKENDS = ("tvm", "onnx")
_OUTCOMES: tuple[tuple[type[NasError], str], ...] = (
    (Busy, "busy"), (Draining, "draining"), (UnknownModel, "unknown"), (DataError, "malformed"), (NasError, "failed"),
)  # fmt: skip

_log = logging.getLogger(__name__)


class ModelEngine:
    """Runs models for many callers; see `runtime.server.interface.Engine`. A context manager.

    models : to begin with. workers : threads that run them, one batch each at a time.
    max_requests, max_bytes : that may wait. keep_old_s : how long what is replaced stays for those who still ask for
    it; until the next replacement at most. clock : seconds, rising. order : `fcfs` or `edf`, by deadlines.
    """

    def __init__(
        self, models: Sequence[Model], *, workers: int = 1, max_requests: int = 256, max_bytes: int = 256 * 2**20,
        keep_old_s: float = 0.0, metrics: "CollectorRegistry | None" = None,
        clock: Callable[[], float] = time.monotonic, order: str = "fcfs",
    ) -> None:  # fmt: skip
        if not 0 <= keep_old_s <= threading.TIMEOUT_MAX:
            raise ConfigError(f"keep_old_s is {keep_old_s}: it must be within 0..{threading.TIMEOUT_MAX:.0f}")
        for name, value in (("workers", workers), ("max_requests", max_requests), ("max_bytes", max_bytes)):
            if value < 1:
                raise ConfigError(f"{name} is {value}: it must be at least 1")
        self._clock, self._keep_old_s = clock, keep_old_s
        self._old: Mapping[str, Model] = {}
        self._expiry: threading.Timer | None = None
        self._models: Mapping[str, Model] = {model.name: model for model in models}
        self._waiting = Waiting(
            max_requests=max_requests, max_bytes=max_bytes, workers=workers, clock=clock, order=order
        )
        self._measures = EngineMeasures(
            {
                "nas_waiting_requests": ("Requests in the queue.", lambda: self.waiting[0]),
                "nas_waiting_bytes": ("Bytes in the queue.", lambda: self.waiting[1]),
                "nas_old_models": ("Models that only the bundle before has.", lambda: self.old_models),
                "nas_ready": ("Whether new work is taken.", self.ready),
            },
            metrics,
        )
        self._replacing = threading.Lock()
        self._workers = [
            threading.Thread(target=self._work, name=f"nas-worker-{index}", daemon=True) for index in range(workers)
        ]
        for worker in self._workers:
            worker.start()

    @property
    def metrics(self) -> "CollectorRegistry":
        """What Prometheus is told."""
        return self._measures.registry

    @property
    def models(self) -> Mapping[str, ModelInfo]:
        """What is served now, by name."""
        return {name: model.info for name, model in (dict(self._old) | dict(self._models)).items()}

    @property
    def old_models(self) -> int:
        """How many of these only the bundle before had."""
        return len(self._old)

    @property
    def workers(self) -> int:
        """Threads that run models."""
        return len(self._workers)

    @property
    def backlog_s(self) -> float:
        """Seconds until what waits and runs now is done, as measured service times tell."""
        return self._waiting.backlog_s

    @property
    def waiting(self) -> tuple[int, int]:
        """Requests and bytes in the queue."""
        return self._waiting.size

    def live(self) -> bool:
        """Whether all workers are there; where not, only a new start helps."""
        return all(worker.is_alive() for worker in self._workers)

    def ready(self) -> bool:
        """Whether new work is taken."""
        return self.live() and not self._waiting.draining

    def infer(self, model: str, x: np.ndarray, *, deadline_s: float | None = None) -> Answer:
        """See `runtime.server.interface.Engine.infer`."""
        woken = threading.Event()
        request = self._enter(model, x, deadline_s, lambda _: woken.set())
        if not woken.wait(min(max(request.until - self._clock(), 0.0), LONGEST_S)):
            self._waiting.abandon(request, Busy("the deadline passed while the request waited: allow more time"))
        self._waiting.returned(request)
        outcome = self._outcome(request)
        if isinstance(outcome, NasError):
            raise outcome
        return outcome

    def replace(self, models: Sequence[Model], *, timeout_s: float = DRAIN_S) -> None:
        """Serve these models from now on. Those that are served already, by fingerprint, are kept as they are. Those
        of names that are gone stay for `keep_old_s`; what the others still have to do is done first.

        Raises
        ------
        NasError : a new one cannot be loaded; then nothing has changed.
        """
        with self._replacing:
            before = dict(self._old) | dict(self._models)
            after = {model.name: _same(before.get(model.name), model) for model in models}
            load(list(after.values()))
            old = {} if not self._keep_old_s else {
                name: model for name, model in self._models.items() if name not in after
            }  # fmt: skip
            self._models, self._old = after, old
            self._expire_later()
            self._let_go(set(before.values()) - set(after.values()) - set(old.values()), timeout_s)

    def drain(self, timeout_s: float = DRAIN_S) -> bool:
        """Take nothing new, end what is here; whether that was done in time."""
        return self._waiting.drain(timeout_s)

    def close(self) -> None:
        """Stop at once. Who still waits gets `Draining`."""
        self._waiting.close()
        for worker in self._workers:
            worker.join(DRAIN_S)
        with self._replacing:
            served = {*self._models.values(), *self._old.values()}
            self._old = {}
            self._expire_later()
        if not any(worker.is_alive() for worker in self._workers):
            for model in served:
                model.close()

    def __enter__(self) -> "ModelEngine":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _expire_later(self) -> None:
        """Let go of the old models when their time is over; what was to go before is not waited for any more."""
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        if self._old:
            self._expiry = threading.Timer(self._keep_old_s, self._expire, (self._old,))
            self._expiry.name, self._expiry.daemon = "nas-expiry", True
            self._expiry.start()

    def _expire(self, old: Mapping[str, Model]) -> None:
        with self._replacing:
            if self._old is old:
                self._old = {}
                self._let_go(set(old.values()), DRAIN_S)

    def _let_go(self, gone: set[Model], timeout_s: float) -> None:
        """Close models that nobody asks for any more, once they have ended their work."""
        if not self._waiting.retire(gone, timeout_s):
            _log.warning("models swapped out have not ended their work after %g s: they stay loaded", timeout_s)
            return
        for model in gone:
            model.close()

    def _model(self, name: str) -> Model:
        found = self._models.get(name) or self._old.get(name)
        if found is None:
            raise UnknownModel(f"no model {name[:80]!r}: see to it that device and server have the same bundle")
        return found

    def _enter(self, name: str, x: np.ndarray, deadline_s: float | None, tell: Callable[[Request], None]) -> Request:
        """A request in the queue; a refusal is counted."""
        arrived, known = self._clock(), ""
        until = math.inf if deadline_s is None else arrived + deadline_s
        try:
            while True:
                model = self._model(name)
                known = model.name
                request = _request(model, x, arrived, until, tell)
                try:
                    self._waiting.put(request)
                except Retired:
                    continue
                return request
        except NasError as error:
            self._measures.ended(known, _word(error))
            raise

    def _outcome(self, request: Request) -> Answer | NasError:
        """What came of a request that has ended; it is counted."""
        if request.error is not None:
            self._measures.ended(request.model.name, _word(request.error))
            return request.error
        self._measures.answered(
            request.model.name, request.started - request.arrived, request.x.nbytes, request.output.nbytes
        )
        return Answer(output=request.output, seconds=self._clock() - request.arrived)

    def _work(self) -> None:
        while (batch := self._waiting.take()) is not None:
            took, failed = run(batch, self._clock)
            if took is not None:
                images = sum(part.last - part.first for part in batch.parts)
                self._measures.ran(batch.model.name, images, took[0])
            self._waiting.finished(batch, took, failed)


class BundleEngine(ModelEngine):
    """Serves every rest of a bundle: what a device hands over, the whole network (place 0) among them.

    Parameters
    ----------
    folder : the bundle, or a link to it.
    backend : one of `BACKENDS`: the bundle's libraries, or its ONNX forms in ONNX Runtime.
    target : whose libraries; None takes the one that runs here. variant : kind of weights.
    workers : None takes one for each processor. Each runs its library on `threads` threads; None shares the
        processors out. One worker with all threads answers a single device sooner; many with one thread each answer
        more devices, since nothing waits for the slowest thread of a call.
    blocks : to serve beside the rests, as far as the bundle has them: stages of a placement (`runtime.chain`).
        Of a bundle that has none of them every block is served, so that a placement of tomorrow may ask for it.
    eager : load and time all models now, not when they are first asked for.
    max_requests, max_bytes, keep_old_s, clock, order : see `ModelEngine`.

    Raises
    ------
    ConfigError : not a bundle, nothing in it runs here, or it hands nothing over. FormatError : a file is off.
    """

    def __init__(
        self, folder: Path | str, *, backend: str = "tvm", target: str | None = None, variant: str = "f32",
        workers: int | None = None, threads: int | None = None, eager: bool = True, blocks: Sequence[str] = (),
        max_requests: int = 256, max_bytes: int = 256 * 2**20,
        keep_old_s: float = 0.0, metrics: "CollectorRegistry | None" = None,
        clock: Callable[[], float] = time.monotonic, order: str = "fcfs",
    ) -> None:  # fmt: skip
        if backend not in BACKENDS:
            raise unknown("backend", backend, BACKENDS)
        count = available_cpus() if workers is None else workers
        self.folder = Path(folder)
        self._backend, self.target = backend, "onnx"
        self._target, self._variant, self._eager, self._blocks = target, variant, eager, tuple(blocks)
        self._threads = max(1, available_cpus() // max(count, 1)) if threads is None else threads
        models = self._read(self.folder)
        if eager:
            load(models)
        super().__init__(
            models, workers=count, max_requests=max_requests, max_bytes=max_bytes, keep_old_s=keep_old_s,
            metrics=metrics, clock=clock, order=order,
        )  # fmt: skip

    @property
    def about(self) -> str:
        """What is served, in a few words."""
        count = len(self._models)
        return (
            f"{count} model{'s' * (count != 1)} ({self.target}, {self._variant}; {self.workers} workers of "
            f"{self._threads} thread{'s' * (self._threads != 1)})"
        )

    def swap(self, folder: Path | str | None = None, *, timeout_s: float = DRAIN_S) -> None:
        """Serve another bundle, or what now lies where the old one did. It is checked, loaded and timed before it
        takes over.

        Raises
        ------
        NasError : it is not sound; the old one goes on.
        """
        folder = self.folder if folder is None else Path(folder)
        try:
            self.replace(self._read(folder), timeout_s=timeout_s)
        except NasError:
            self._measures.swapped("refused")
            raise
        self.folder = folder
        self._measures.swapped("ok")

    def _read(self, folder: Path) -> list[Model]:
        bundle = Bundle.open(folder.resolve())  # a link may point elsewhere when a library is loaded
        served = {block for block, entry in bundle.manifest.blocks.items() if "rest" in entry.roles}
        held = {block for block in self._blocks if block in bundle.manifest.blocks}
        served |= held if held or not self._blocks else set(bundle.manifest.blocks)
        rests = sorted(served)
        if not rests:
            raise ConfigError(f"the tree of {folder} hands nothing over: there is nothing to serve")
        if self._backend == "onnx":
            return [OnnxModel(bundle, block, threads=self._threads) for block in rests]
        self.target = name = chosen_target(bundle.manifest, self._target)
        bundle = Bundle.open(bundle.folder, name)
        return [
            BundleModel(bundle, block, target=name, variant=self._variant, threads=self._threads) for block in rests
        ]


def load(models: Sequence[Model]) -> None:
    """Load models in a thread of their own, so that TVM's threads for it go when it goes.

    Raises
    ------
    NasError : one cannot be loaded.
    """
    errors: list[BaseException] = []

    def work() -> None:
        try:
            for model in models:
                model.load()
        except BaseException as error:
            errors.append(error)

    loader = threading.Thread(target=work, name="nas-load")
    loader.start()
    loader.join(LONGEST_S)
    if loader.is_alive():
        raise NasError(f"loading took over {LONGEST_S:.0f} s: the disk or the library is stuck; start the server anew")
    if errors:
        raise errors[0]


def _request(model: Model, x: np.ndarray, arrived: float, until: float, tell: Callable[[Request], None]) -> Request:
    shape = model.info.shape_in
    if x.dtype != np.float32 or x.ndim < 1 or x.shape[1:] != shape or not len(x):
        raise DataError(f"the input is {x.dtype} {x.shape}: it must be float32 (n, {str(shape)[1:-1]}), n from 1")
    if not np.isfinite(x).all():
        raise DataError("the input has numbers that are not finite: send what the device's block really made")
    output = np.empty((len(x), *model.info.shape_out), np.float32)
    return Request(model=model, x=x, output=output, arrived=arrived, until=until, tell=tell)


def _word(error: NasError) -> str:
    """What an outcome is counted under."""
    return next(word for kind, word in _OUTCOMES if isinstance(error, kind))


def _same(before: Model | None, after: Model) -> Model:
    if before is not None and before.loaded and before.fingerprint == after.fingerprint:
        return before
    return after
