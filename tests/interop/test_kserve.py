"""Our devices ask KServe, which never heard of us, for the rests of a bundle in their ONNX form."""

import os
import random
import socket
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from environments import environment, needs_venv
from forked_run import (
    EDGE_MBPS,
    FAST_MBPS,
    FEATURES,
    FROM_IMAGE,
    IMAGE,
    SECOND,
    SLOW_MBPS,
    compiled,
    networks,
    normalised,
    wanted,
)

from compile.bundle.onnx_form import onnx_form
from runtime.execution.bundle import Bundle
from runtime.execution.device import Device
from runtime.options import SessionOptions
from runtime.remote.link_monitor import LinkWatch
from runtime.session import Session
from runtime.wire.transports import Refused, TransportError, open_transport
from transforms import export

pytestmark = needs_venv
SCRIPT = Path(__file__).with_name("kserve_server.py")
X = np.random.default_rng(0).standard_normal((3, *IMAGE), np.float32)
START_S = 90.0
BOTH = pytest.mark.parametrize("scheme", ["grpc", "http"])


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


@pytest.fixture(scope="module")
def urls(tmp_path_factory):
    python = environment("kserve", "kserve==0.21.0", "onnxruntime==1.31.1")
    folder = tmp_path_factory.mktemp("kserve")
    for name, shape in ((FROM_IMAGE, IMAGE), (SECOND, FEATURES)):
        (folder / f"{name}.onnx").write_bytes(onnx_form(export(networks()[name], shape)))
    ports = {"http": free_port(), "grpc": free_port()}
    words = [word for scheme, port in ports.items() for word in (f"--{scheme}_port", str(port))]
    with (folder / "log.txt").open("wb") as log:
        process = subprocess.Popen(
            [python, SCRIPT, folder, *words], stdout=log, stderr=log, env={"PATH": os.environ["PATH"]}
        )
    found = {scheme: f"{scheme}://127.0.0.1:{port}" for scheme, port in ports.items()}
    try:
        for url in found.values():
            _wait(url, process, folder / "log.txt")
        yield found
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(url, process, log):
    until = time.monotonic() + START_S
    with open_transport(url, frames=False) as transport:
        while True:
            try:
                if transport.ready(2.0):
                    return
            except TransportError as error:
                last = error
            assert process.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < until, f"{last}\n{log.read_text()[-3000:]}"
            time.sleep(0.2)


@BOTH
def test_a_model_of_kserve_is_described_and_asked_in_its_own_names(urls, scheme):
    with open_transport(urls[scheme], frames=False) as transport:
        described = transport.describe(FROM_IMAGE, 10.0)
        assert described.inputs == (("input", "FP32", (-1, *IMAGE)),)
        assert described.outputs == (("output", "FP32", (-1, 4)),)
        for bits in (8, 32):
            reply = transport.infer(FROM_IMAGE, X, bits=bits, timeout_s=10.0, shape_out=(4,))
            expected = np.array([wanted((1,), one) for one in X])
            np.testing.assert_allclose(reply.output, expected, rtol=1e-4, atol=1e-4)
            assert reply.server_s == 0.0
            assert reply.sent_bytes > X.nbytes


@BOTH
def test_what_kserve_refuses_is_refused_and_it_is_asked_again(urls, scheme):
    with open_transport(urls[scheme], frames=False) as transport:
        with pytest.raises(Refused, match="nothing"):
            transport.infer("nothing", X, bits=32, timeout_s=10.0)
        with pytest.raises(Refused):
            transport.infer(FROM_IMAGE, X[:, :1], bits=32, timeout_s=10.0)
        assert transport.infer(FROM_IMAGE, X[:1], bits=32, timeout_s=10.0).output.shape == (1, 4)


class SaidLink(LinkWatch):
    """A link whose bandwidth the test says, fork by fork."""

    def bandwidth_type(self):
        mbps = self.mbps.pop(0)
        return int(mbps >= EDGE_MBPS), mbps


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return compiled(tmp_path_factory.mktemp("interop"))


@BOTH
@pytest.mark.parametrize("given", ["pixels", "floats"])
@pytest.mark.parametrize(("mbps", "nodes"), [([FAST_MBPS], (1,)), ([SLOW_MBPS, FAST_MBPS], (0, 3))])
def test_a_session_hands_over_to_kserve_at_every_place(urls, bundle, scheme, mbps, nodes, given):
    pixels = np.random.default_rng(1).integers(0, 256, IMAGE, dtype=np.uint8)
    device = Device(Bundle.open(bundle))
    device.warm_up()
    link = SaidLink(device.manifest.tree.types)
    transport = open_transport(urls[scheme], frames=False)
    with Session(device, link, transport, SessionOptions(timeout_s=10.0), rng=random.Random(0)) as session:
        link.mbps = list(mbps)
        result = session.infer(pixels if given == "pixels" else normalised(pixels))
    assert (result.answered_by, result.nodes) == ("cloud", nodes), result.why
    np.testing.assert_allclose(result.output, wanted(nodes, normalised(pixels)), rtol=1e-4, atol=1e-4)
