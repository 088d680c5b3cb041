"""NVIDIA's client of the protocol, which never heard of us, asks `nas serve`."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from environments import environment, needs_venv
from forked_run import FROM_IMAGE, IMAGE, compiled, wanted

from runtime.server.serving import ServeConfig, Server

pytestmark = needs_venv
SCRIPT = Path(__file__).with_name("triton_client.py")
X = np.random.default_rng(0).standard_normal((3, *IMAGE), np.float32)


@pytest.fixture(scope="module")
def python():
    return environment("tritonclient", "tritonclient[grpc,http]==2.73.0", "numpy")


@pytest.fixture(scope="module")
def urls(tmp_path_factory):
    config = ServeConfig(
        bundle=compiled(tmp_path_factory.mktemp("interop")), listen=("grpc://127.0.0.1:0", "http://127.0.0.1:0")
    )
    with Server(config) as server:
        yield dict(zip(("grpc", "http"), server.urls, strict=True))


@pytest.mark.parametrize("kind", ["grpc", "http"])
def test_tritonclient_finds_a_live_server_its_model_and_the_right_numbers(python, urls, kind, tmp_path):
    np.save(tmp_path / "x.npy", X)
    place = urls[kind].partition("://")[2]
    done = subprocess.run(
        [python, SCRIPT, kind, place, FROM_IMAGE, tmp_path / "x.npy"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["live"], told["ready"], told["model_ready"]) == (True, True, [True, True])
    assert (told["server"]["name"], told["model"]["name"], told["model"]["versions"]) == ("nas", FROM_IMAGE, ["1"])
    assert {one["name"]: one["datatype"] for one in told["model"]["inputs"]} == {"x": "FP32", "frame": "UINT8"}
    assert [(one["name"], [int(size) for size in one["shape"]]) for one in told["model"]["outputs"]] == [
        ("logits", [-1, 4])
    ]
    expected = np.array([wanted((1,), one) for one in X])
    for answer in [told["logits"], told["asked"], *([told["listed"]] if kind == "http" else [])]:
        np.testing.assert_allclose(answer, expected, rtol=1e-4, atol=1e-4)
    assert told["id"] == "seven"
    assert ["no model" in told["refused"][0], "shape" in told["refused"][1]] == [True, True]
