"""ONNX: the same numbers as torch, the same bytes every time, and nothing printed."""

import io

import numpy as np
import pytest
import torch
from torch import nn

from compile.bundle.onnx_form import onnx_form
from modeltree.errors import GraphError
from transforms.graph.lifting import export

onnxruntime = pytest.importorskip("onnxruntime", reason="pip install onnxruntime onnxscript")


class Residual(nn.Module):
    """A sum, a concatenation, a depthwise layer, pools."""

    def __init__(self):
        super().__init__()
        self.stem, self.depthwise = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.norm, self.last = nn.BatchNorm2d(8), nn.Linear(16, 5)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        x = torch.cat([x + self.norm(self.depthwise(x)), x], 1)
        return self.last(nn.functional.adaptive_avg_pool2d(torch.max_pool2d(x, 2), 1).flatten(1))


@pytest.fixture(scope="module")
def program():
    torch.manual_seed(0)
    return export(Residual().eval(), (3, 8, 8))


def test_for_one_batch_the_form_takes_that_alone_and_the_program_stays_dynamic(program):
    session = onnxruntime.InferenceSession(onnx_form(program, batch=2), providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == [2, 3, 8, 8]
    x = np.random.default_rng(1).standard_normal((5, 3, 8, 8), np.float32)
    expected = program.module()(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(session.run(None, {"input": x[:2]})[0], expected[:2], atol=1e-5)


def test_the_onnx_form_computes_what_torch_does_at_any_batch_and_prints_nothing(program, capfd):
    model = onnx_form(program)
    assert capfd.readouterr() == ("", "")
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    assert [(one.name, one.shape) for one in session.get_inputs()] == [("input", ["batch", 3, 8, 8])]
    assert [(one.name, one.shape) for one in session.get_outputs()] == [("output", ["batch", 5])]
    x = np.random.default_rng(1).standard_normal((7, 3, 8, 8), dtype=np.float32)
    with torch.no_grad():
        expected = program.module()(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(session.run(None, {"input": x})[0], expected, atol=1e-5)


def test_the_onnx_form_has_the_same_bytes_each_time_and_tells_nothing_of_the_machine(program):
    again = io.BytesIO()
    torch.export.save(program, again)
    again.seek(0)
    model = onnx_form(program)
    assert onnx_form(torch.export.load(again)) == model
    assert b".py" not in model
    assert b"stack_trace" not in model


def test_a_wrong_onnx_form_is_refused(program, monkeypatch):
    monkeypatch.setattr("compile.bundle.onnx_form.TOLERANCE", -1.0)
    with pytest.raises(GraphError, match="differs from torch"):
        onnx_form(program)


def test_what_cannot_be_written_is_told():
    with pytest.raises(GraphError, match=r"torch\.onnx refuses the block"):
        onnx_form("no program")
