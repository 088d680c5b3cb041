"""What a device needs: a session runs where neither torch nor TVM nor ONNX is, says nothing and takes little."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from certificates import Authority
from forked_run import IMAGE, compiled, normalised, wanted

from runtime.server.fronts.admission import ServerTls
from runtime.server.serving import ServeConfig, Server

BENCHMARK = Path(__file__).parents[2] / "benchmarks/device_memory.py"
VENVS = os.environ.get("NAS_VENVS")

ON_A_DEVICE = """
import json, sys
absent = ("torch", "tvm", "onnx", "onnxruntime", "openvino", "grpc", "google.protobuf", "typer", "scipy")
sys.modules.update(dict.fromkeys(absent))  # None: importing it raises ImportError
from runtime import Session
import numpy as np
with Session.open(BUNDLE) as session:
    result = session.infer(np.load(IMAGE))
assert "tvm_ffi" not in sys.modules
sys.stdout.write(json.dumps([result.nodes, result.answered_by, result.output.tolist()]))
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return compiled(tmp_path_factory.mktemp("device"))


def test_where_torch_tvm_and_onnx_cannot_be_imported_a_session_answers_and_says_nothing_else(bundle, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, IMAGE, dtype=np.uint8)
    np.save(tmp_path / "image.npy", pixels)
    program = f"BUNDLE, IMAGE = {str(bundle)!r}, {str(tmp_path / 'image.npy')!r}\n{ON_A_DEVICE}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    nodes, who, output = json.loads(done.stdout)
    assert who == "device"
    np.testing.assert_allclose(output, wanted(tuple(nodes), normalised(pixels)), rtol=1e-4, atol=1e-4)


def test_a_certificate_of_another_authority_is_refused_with_nothing_on_standard_error(bundle, tmp_path):
    """In a process of its own: what gRPC's core says goes past Python."""
    ours, other = Authority(tmp_path, "ours"), Authority(tmp_path, "other")
    signed = ours.signed("server")
    config = ServeConfig(
        bundle=bundle, listen=("grpcs://127.0.0.1:0",),
        tls=ServerTls(certificate=signed["certificate"], key=signed["key"]),
    )  # fmt: skip
    with Server(config) as server:
        program = f"""
from pathlib import Path
from runtime.wire.transports import Refused, open_transport
with open_transport({server.urls[0]!r}, ca=Path({str(other.pem)!r})) as transport:
    try:
        transport.probe(64, 20.0)
    except Refused as error:
        print("refused")
"""
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.stderr) == ("refused\n", "")


def test_runtime_has_a_session_and_names_what_it_does_not_have():
    import runtime
    from runtime.session import Session

    assert runtime.Session is Session
    with pytest.raises(AttributeError, match="'Sesion': it has Session"):
        runtime.Sesion  # noqa: B018


@pytest.mark.venv
@pytest.mark.slow
@pytest.mark.skipif(VENVS is None, reason="set NAS_VENVS to a folder that keeps environments with packages from PyPI")
def test_with_the_base_dependencies_alone_a_session_runs_vgg11_in_120_mb_and_imports_in_half_a_second(tmp_path):
    command = [sys.executable, BENCHMARK, "--venvs", VENVS, "--rounds", "1", "--json", tmp_path / "told.json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    if done.returncode == 3:
        pytest.skip(f"needs PyPI once: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    told = {kind: one for kind, (one,) in json.loads((tmp_path / "told.json").read_text()).items()}
    assert {kind: one["answered_by"] for kind, one in told.items()} == {
        "no server": ["device"], "rest": ["cloud"], "grpc": ["cloud"],
    }  # fmt: skip
    for one in told.values():
        assert (one["errors"], one["forbidden"], one["finite"]) == ("", [], True)
        assert one["imported_s"] < 0.5
        assert one["memory"]["inferred"]["VmHWM"] * 1024 < 120e6
