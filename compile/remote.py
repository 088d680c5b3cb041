"""A device elsewhere that times our kernels: `python -m tvm.exec.rpc_server` there, this here."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tvm

from compile.targets import Target
from modeltree.errors import ConfigError

SCHEME = "rpc://"
_SESSION_S = 3600
_MIN_MS = 10


class RemoteDevice:
    """A session with a device.

    Parameters
    ----------
    address : `rpc://host:port` or `host:port`, where TVM's RPC server listens.
    target : what the device is; it must have TVM's runtime.

    Raises
    ------
    ConfigError : the address is none, nobody answers, or the target has no TVM runtime.
    """

    def __init__(self, address: str, target: Target) -> None:
        from tvm import rpc

        host, _, port = address.removeprefix(SCHEME).rpartition(":")
        if not host or not port.isdigit():
            raise ConfigError(
                f"address is {address!r}: it must be {SCHEME}host:port, where tvm.exec.rpc_server listens"
            )
        if target.runtime != "tvm":
            raise ConfigError(f"{target.name} has no TVM runtime, which RPC needs: name a target that has")
        try:
            self.session = rpc.connect(host, int(port), session_timeout=_SESSION_S)
        except Exception as error:  # TVM raises its own types
            raise ConfigError(
                f"no RPC server answers at {address}: start python -m tvm.exec.rpc_server there"
            ) from error
        self.target = target
        self._loaded = 0
        self.use_threads(target.threads)

    def use_threads(self, threads: int) -> None:
        """How many threads a call may take from now on."""
        self.session.get_function("runtime.config_threadpool")(1, threads)

    def load(self, library: bytes) -> Any:
        """Send a library and load it there."""
        name = f"nas_{self._loaded}.so"
        self._loaded += 1
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name
            path.write_bytes(library)
            self.session.upload(str(path))
        return self.session.load_module(name)

    def tensors(self, arrays: Sequence[np.ndarray]) -> list[Any]:
        """Arrays, there; of any shape."""
        return [tvm.runtime.tensor(array, self.session.cpu()) for array in arrays]

    def seconds(self, module: Any, name: str, tensors: Sequence[Any], *, repeats: int = 1) -> float:
        """Of one call: the least mean of several bursts."""
        clock = module.time_evaluator(name, self.session.cpu(), number=1, repeat=repeats, min_repeat_ms=_MIN_MS)
        return float(min(clock(*tensors).results))
