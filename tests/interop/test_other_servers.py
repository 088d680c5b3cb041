"""Answers as other servers of the protocol write them, byte for byte; what they are in life is in test_kserve."""

import http.server
import json
import threading

import numpy as np
import pytest

from runtime.wire.transports import Malformed, Refused, open_transport

X = np.array([[1, 2, 3]], np.float32)
NUMBERS = {"name": "numbers", "datatype": "FP32", "shape": [-1, 3]}
METADATA = {"name": "sum", "versions": None, "platform": None, "inputs": [NUMBERS], "outputs": []}
OUTPUT = {"name": "o", "datatype": "FP32", "shape": [1, 1], "parameters": None, "data": [6.0]}
ANSWER = {"model_name": "sum", "model_version": None, "parameters": None, "outputs": [OUTPUT]}


@pytest.fixture
def other():
    """A server that writes null for what it leaves out; `asked` is what came, `change` what is said otherwise."""

    class Handler(http.server.BaseHTTPRequestHandler):
        asked, change = None, {}

        def do_GET(self):
            self.say(METADATA)

        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            Handler.asked = json.loads(body[: int(self.headers["Inference-Header-Content-Length"])])
            self.say(ANSWER | {"id": Handler.asked["id"]} | self.change)

        def say(self, what):
            data = json.dumps(what).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    with open_transport(f"http://127.0.0.1:{server.server_port}", frames=False) as transport:
        yield transport, Handler
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("bits", [8, 32])
def test_null_stands_for_what_is_left_out_and_numbers_go_as_floats_under_the_models_own_name(other, bits):
    transport, handler = other
    assert transport.infer("sum", X, bits=bits, timeout_s=5.0, shape_out=(1,)).output.tolist() == [[6]]
    (given,) = handler.asked["inputs"]
    assert (given["name"], given["datatype"], given["shape"]) == ("numbers", "FP32", [1, 3])
    assert transport.describe("sum", 5.0).inputs == (("numbers", "FP32", (-1, 3)),)


@pytest.mark.parametrize(
    "change", [{"id": None}, {"id": "9"}, {"model_name": None}, {"outputs": None}, {"outputs": []}]
)
def test_null_does_not_stand_for_what_must_be_there(other, change):
    transport, handler = other
    handler.change = change
    with pytest.raises(Malformed):
        transport.infer("sum", X, bits=32, timeout_s=5.0, shape_out=(1,))


def test_a_model_that_takes_no_single_float_tensor_is_refused(other, monkeypatch):
    transport, _ = other
    monkeypatch.setitem(METADATA, "inputs", [NUMBERS | {"datatype": "INT8"}])
    with pytest.raises(Refused, match="must take one FP32 tensor"):
        transport.infer("sum", X, bits=32, timeout_s=5.0)
