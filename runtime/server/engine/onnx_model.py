"""A rest's ONNX form in ONNX Runtime, for clouds whose processor the bundle was not compiled for."""

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from modeltree.errors import ConfigError, NasError
from runtime.execution.bundle import Bundle
from runtime.server.engine.model import info_of
from runtime.server.engine.timing import ServiceTimes
from runtime.server.interface import ModelInfo

BATCHES = (1, 4, 8)
_WARM_RUNS = 3


class OnnxModel:
    """A rest for ONNX Runtime, in the same dress as `runtime.server.engine.model.BundleModel`.

    batches : sizes that requests are put together to. threads : of a call.

    Raises
    ------
    ConfigError : the bundle holds no ONNX forms, or onnxruntime is not installed.
    """

    def __init__(
        self, bundle: Bundle, block: str, *, threads: int, batches: tuple[int, ...] = BATCHES,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:  # fmt: skip
        path = bundle.onnx_path(block)
        if path is None:
            raise ConfigError(f"{bundle.folder} holds no ONNX form of rest {block}: compile it with nas compile --onnx")
        try:
            import onnxruntime
        except ImportError as error:
            raise ConfigError("onnxruntime is not installed: pip install onnxruntime, or serve with tvm") from error
        self.name, self._path = block, path
        self._onnxruntime: Any = onnxruntime
        entry = bundle.block(block).onnx
        assert entry is not None
        self.info: ModelInfo = info_of(bundle, block)
        self.times = ServiceTimes(batches)
        self.fingerprint: tuple[object, ...] = (block, "onnx", threads, entry.sha256)
        self._threads, self._clock = threads, clock
        self._session: Any = None
        self._loading = threading.Lock()

    @property
    def loaded(self) -> bool:
        """See `runtime.server.engine.model.Model`."""
        return self._session is not None

    def run(self, x: np.ndarray) -> np.ndarray:
        """See `runtime.server.engine.model.Model`.

        Raises
        ------
        NasError : ONNX Runtime failed.
        """
        self.load()
        return self._call(self._session, x)

    def load(self) -> None:
        """Read the form and run every batch size on zeros, so that all times are known."""
        with self._loading:
            if self._session is not None:
                return
            options = self._onnxruntime.SessionOptions()
            options.intra_op_num_threads, options.inter_op_num_threads = self._threads, 1
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
            try:
                session = self._onnxruntime.InferenceSession(
                    str(self._path), options, providers=["CPUExecutionProvider"]
                )
            except Exception as error:
                raise NasError(f"{self._path} cannot be loaded by ONNX Runtime: {error}: compile it again") from error
            for batch in self.times.batches:
                zeros = np.zeros((batch, *self.info.shape_in), np.float32)
                self._call(session, zeros)
                self.times.note(batch, min(self._timed(session, zeros) for _ in range(_WARM_RUNS)))
            self._session = session

    def close(self) -> None:
        """See `runtime.server.engine.model.Model`."""
        with self._loading:
            self._session = None

    def _timed(self, session: Any, x: np.ndarray) -> float:
        started = self._clock()
        self._call(session, x)
        return self._clock() - started

    def _call(self, session: Any, x: np.ndarray) -> np.ndarray:
        try:
            return np.asarray(session.run(None, {session.get_inputs()[0].name: x})[0])
        except Exception as error:
            raise NasError(f"ONNX Runtime failed on {self._path}: {error}") from error
