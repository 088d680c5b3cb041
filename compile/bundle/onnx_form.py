"""Blocks as ONNX, for servers and tools that do not know TVM."""

import contextlib
import io
import logging
import math
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from compile.graph.core_form import fixed_batch
from modeltree.errors import GraphError

TOLERANCE = 1e-3
"""Largest difference to torch, as a share of the largest output. Both sum in float32 in another order: 1e-6 to 1e-5 is
what networks here show, and a wrong operator is off by 0.1 and more."""

_BATCHES = (1, 3)


def onnx_form(program: torch.export.ExportedProgram, batch: int | None = None) -> bytes:
    """An exported block as an ONNX model: `input` (batch, ...) to `output`, weights inside.

    batch : that the model is for; any without it. For one it is written in half the time.

    Equal programs give equal bytes. Nothing is printed. Where onnxruntime is installed the model is run against torch.

    Raises
    ------
    GraphError : it cannot be written as ONNX, or the ONNX model computes something else.
    """
    try:
        with _silence(), contextlib.nullcontext() if batch is None else fixed_batch(program, batch):
            written = torch.onnx.export(
                program, dynamo=True, external_data=False, verbose=False, input_names=["input"], output_names=["output"]
            )
        assert written is not None
        model = _bare(written.model_proto, dynamic=batch is None)
    except Exception as error:  # the exporter raises many unrelated types
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise GraphError(f"torch.onnx refuses the block ({first_line}): compile without --onnx") from error
    _check(program, model, _BATCHES if batch is None else (batch,))
    return model


def _bare(model: Any, *, dynamic: bool) -> bytes:
    """Without what tells of the machine: stack traces, file names, names of the batch dimension."""
    graph = model.graph
    for node in graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        value.doc_string = ""
        del value.metadata_props[:]
    del model.metadata_props[:], graph.metadata_props[:], graph.value_info[:]
    for value in (*graph.input, *graph.output) if dynamic else ():
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    return bytes(model.SerializeToString(deterministic=True))


def _check(program: torch.export.ExportedProgram, model: bytes, batches: tuple[int, ...]) -> None:
    try:
        import onnxruntime
    except ImportError:
        return
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    (entering,) = (node for node in program.graph.nodes if node.name in program.graph_signature.user_inputs)
    shape = tuple(int(size) for size in entering.meta["val"].shape[1:])
    module, rng = program.module(), np.random.default_rng(0)
    for batch in batches:
        x = rng.standard_normal((batch, *shape), dtype=np.float32)
        with torch.no_grad():
            expected = module(torch.from_numpy(x)).numpy()
        (found,) = session.run(None, {"input": x})
        error = float(np.abs(found - expected).max()) if found.shape == expected.shape else math.inf
        if not error <= TOLERANCE * max(1.0, float(np.abs(expected).max())):
            raise GraphError(f"the ONNX form differs from torch by {error:g} at batch {batch}: compile without --onnx")


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Nothing on standard output and error, not from torch's own log handlers either, which hold on to the streams."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
