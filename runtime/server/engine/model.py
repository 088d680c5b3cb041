"""One rest of a bundle, ready to run: its libraries, one for each batch size."""

import math
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np

from modeltree.errors import ConfigError
from runtime.execution.bundle import Bundle
from runtime.execution.library import Library
from runtime.server.engine.timing import ServiceTimes
from runtime.server.interface import ModelInfo

_WARM_RUNS = 3


class Model(Protocol):
    """What the engine runs. `run` may be called from several threads at once.

    name : under which it is asked for. fingerprint : equal only for equal libraries.
    """

    name: str
    fingerprint: tuple[object, ...]
    info: ModelInfo
    times: ServiceTimes

    @property
    def loaded(self) -> bool:
        """Whether `load` has done its work."""

    def run(self, x: np.ndarray) -> np.ndarray:
        """(n, *shape_out) of (n, *shape_in); n is one of the sizes in `times`."""

    def load(self) -> None:
        """Make ready, if that has not happened yet."""

    def close(self) -> None:
        """Give back what `load` took; nobody runs it now or later."""


def info_of(bundle: Bundle, block: str) -> ModelInfo:
    """What a rest takes and gives; one that is handed images also takes their pixels."""
    entry, tree = bundle.block(block), bundle.manifest.tree
    whole = any(path.rest == block and path.handover_place == 0 for path in bundle.manifest.paths)
    return ModelInfo(
        shape_in=entry.in_shape, shape_out=entry.out_shape, mean=tree.mean if whole else None,
        std=tree.std if whole else None, rule=tree.picture, outputs=tree.outputs,
    )  # fmt: skip


class BundleModel:
    """A rest's libraries for one target and kind of weights. Loaded at the first call, or by `load`.

    threads : of a call. clock : seconds, for the times that `load` measures.

    Raises
    ------
    ConfigError : it was not compiled so.
    """

    def __init__(
        self, bundle: Bundle, block: str, *, target: str, variant: str, threads: int,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:  # fmt: skip
        entry = bundle.block(block)
        found = [one for one in entry.libraries if (one.target, one.variant) == (target, variant)]
        if not found:
            known = sorted({f"{one.target} {one.variant}" for one in entry.libraries})
            raise ConfigError(f"rest {block} is not compiled for {target} {variant}: known are {', '.join(known)}")
        self.name = block
        self.info = info_of(bundle, block)
        self.times = ServiceTimes([one.batch for one in found])
        self.fingerprint = (block, target, variant, threads, *sorted((one.batch, one.sha256) for one in found))
        self._bundle, self._target, self._variant = bundle, target, variant
        self._threads, self._clock = threads, clock
        self._libraries: dict[int, Library] = {}
        self._loading = threading.Lock()

    @property
    def loaded(self) -> bool:
        """See `Model`."""
        return bool(self._libraries)

    def run(self, x: np.ndarray) -> np.ndarray:
        """See `Model`.

        Raises
        ------
        NasError : the library failed. FormatError : it is to be loaded now, and its file is off.
        """
        self.load()
        return self._libraries[len(x)].run(x)

    def load(self) -> None:
        """Check, load and run every library on zeros, so that weights are in memory and all times are known."""
        with self._loading:
            if self._libraries:
                return
            runtime = self._bundle.runtime_path(self._target)
            loaded = {}
            for batch in self.times.batches:
                path = self._bundle.library_path(self.name, target=self._target, variant=self._variant, batch=batch)
                loaded[batch] = self._open(path, batch, runtime)
            for batch, library in loaded.items():
                self.times.note(batch, *self._measured(library))
            self._libraries = loaded

    def close(self) -> None:
        """See `Model`."""
        with self._loading:
            for library in self._libraries.values():
                library.close()
            self._libraries = {}

    def _open(self, path: Path, batch: int, runtime: Path | None) -> Library:
        """Loaded under a name that is used once: of a name that it has seen, the loader gives the library that it
        has, although another bundle may lie there now."""
        info = self.info
        with tempfile.TemporaryDirectory(prefix="nas-") as folder:
            alias = Path(folder, path.name)
            alias.symlink_to(path.absolute())
            library = Library(
                alias, shape_in=(batch, *info.shape_in), shape_out=(batch, *info.shape_out), runtime=runtime,
                threads=self._threads,
            )  # fmt: skip
        library.path = path
        return library

    def _measured(self, library: Library) -> tuple[float, float]:
        """Seconds and work of a call at its best."""
        zeros, seconds, work = np.zeros(library.shape_in, np.float32), math.inf, math.inf
        library.run(zeros)  # reads the weights from disk
        for _ in range(_WARM_RUNS):
            started, worked = self._clock(), time.thread_time()
            library.run(zeros)
            seconds, work = min(seconds, self._clock() - started), min(work, time.thread_time() - worked)
        return seconds, work
