"""Engines that run a network on this machine: ours, and the peers it is measured against.

Each is a function that takes a case and a number of threads and returns a call, numpy in and out. They run in a process
of their own (`nas.bench.processes`), so imports are inside. Peers get what their manuals advise for latency, and
their leanest way in and out.
"""

import importlib.util
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from modeltree.errors import unknown
from nas.bench.cases import Case

Call = Callable[[np.ndarray], np.ndarray]
WARM_S = 0.04
"""Run before a burst is timed: caches and clocks as in a steady stream of images."""


@dataclass(frozen=True, kw_only=True)
class Engine:
    """A way to run a case.

    package : that must be there. hint : how to get it. environment : threads, for libraries that ask there.
    """

    name: str
    load: Callable[[Case, int], Call]
    package: str
    hint: str

    def environment(self, threads: int) -> dict[str, str]:
        """Thread counts where libraries look for them when they are loaded."""
        return {"OMP_NUM_THREADS": str(threads), "TVM_NUM_THREADS": str(threads), "TVM_BIND_THREADS": "0"}


def _ours(weights: str) -> Callable[[Case, int], Call]:
    def load(case: Case, threads: int) -> Call:
        from runtime.execution.library import Library

        library = Library(
            case.library(weights, threads), shape_in=case.shape_in, shape_out=case.shape_out, threads=threads
        )
        return library.run

    return load


def _onnxruntime(case: Case, threads: int) -> Call:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(case.onnx, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda x: session.run(None, {name: x})[0]


def _openvino(precision: str, *, quantise: bool = False) -> Callable[[Case, int], Call]:
    """OpenVINO in a precision; quantise : to int8 by its NNCF first, with the scales of the case's own input."""

    def load(case: Case, threads: int) -> Call:
        import openvino

        core = openvino.Core()
        model = core.read_model(case.onnx)
        model.reshape(list(case.shape_in))
        if quantise:
            import nncf

            model = nncf.quantize(model, nncf.Dataset([case.x]), subset_size=1)
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": precision,
        }
        request = core.compile_model(model, "CPU", settings).create_infer_request()
        return lambda x: request.infer({0: x}, share_inputs=True, share_outputs=True)[0]

    return load


def _torch(case: Case, threads: int) -> Call:
    import torch

    from compile.program_file import read_program

    torch.set_num_threads(threads)
    if torch.get_num_interop_threads() != 1:  # may be set once in a process
        torch.set_num_interop_threads(1)
    module = read_program(case.program).module()

    def call(x: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            found: np.ndarray = module(torch.from_numpy(x)).numpy()
            return found

    return call


def _tvm(case: Case, threads: int) -> Call:
    import tvm
    from tvm.relax.frontend.torch import from_exported_program

    from compile.program_file import read_program
    from compile.targets import host

    module = from_exported_program(read_program(case.program), unwrap_unit_return_tuple=True)
    sides = [str(side) for side in module["main"].params[0].ty.shape if not isinstance(side, tvm.tirx.IntImm)]
    if sides:
        module = tvm.relax.transform.BindSymbolicVars(dict.fromkeys(sides, case.shape_in[0]))(module)
    machine = tvm.relax.VirtualMachine(tvm.compile(module, target=tvm.target.Target(host().llvm())), tvm.cpu())

    def call(x: np.ndarray) -> np.ndarray:
        found = machine["main"](tvm.runtime.tensor(x))
        array: np.ndarray = (found if hasattr(found, "numpy") else found[0]).numpy()
        return array

    return call


_BENCH = "pip install 'nas-modeltree[bench]'"
_COMPILE = "pip install 'nas-modeltree[compile]'"
_NNCF = "pip install 'nas-modeltree[bench]' nncf"
OURS = {
    weights: Engine(name=f"nas-{weights}", load=_ours(weights), package="tvm", hint=_COMPILE)
    for weights in ("f32", "bf16", "int8", "bf16-dot", "int8-dot")
}
"""Our libraries, by how they hold weights."""

PEERS = {
    engine.name: engine
    for engine in (
        Engine(name="ort", load=_onnxruntime, package="onnxruntime", hint=_BENCH),
        Engine(name="openvino", load=_openvino("f32"), package="openvino", hint=_BENCH),
        Engine(name="openvino-bf16", load=_openvino("bf16"), package="openvino", hint=_BENCH),
        Engine(name="openvino-int8", load=_openvino("f32", quantise=True), package="nncf", hint=_NNCF),
        Engine(name="torch", load=_torch, package="torch", hint=_COMPILE),
        Engine(name="tvm-default", load=_tvm, package="tvm", hint=_COMPILE),
    )
}
"""Others, by name."""


def installed(engine: Engine) -> bool:
    """Whether an engine's package is there; it is not imported."""
    return importlib.util.find_spec(engine.package) is not None


class Runner:
    """One engine with one number of threads, in its own process; holds one case at a time."""

    def __init__(self, name: str, threads: int) -> None:
        known = {engine.name: engine for engine in (*OURS.values(), *PEERS.values())}
        if name not in known:
            raise unknown("engine", name, known)
        self.engine, self.threads = known[name], threads

    def load(self, case: Case) -> np.ndarray:
        """Take up a case; what the engine makes of its input."""
        self.x = case.x
        self.run = self.engine.load(case, self.threads)
        return np.array(self.run(self.x))

    def burst(self, seconds: float, processor: bool = False) -> float:
        """Median seconds of a call, over calls back to back for about so long (five at least).

        processor : seconds of processor instead, summed over threads: what a busy machine lets one measure of one.
        """
        clock = time.process_time if processor else time.perf_counter
        until = clock() + WARM_S
        while clock() < until:
            self.run(self.x)
        times: list[float] = []
        until = clock() + seconds
        while len(times) < _LEAST_CALLS or clock() < until:
            began = clock()
            self.run(self.x)
            times.append(clock() - began)
        return float(np.median(times))


_LEAST_CALLS = 5
