"""`nas serve` as its users meet it: started, asked, swapped, measured and ended; and the parts it is made of."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from bundles import FROM_IMAGE, IMAGE
from prometheus_client import generate_latest
from small_bundle import write_small_bundle

from modeltree.errors import ConfigError
from runtime.server.bundle_watcher import Watch
from runtime.server.metrics import EngineMeasures, MetricsServer
from runtime.server.processes import Processes
from runtime.server.serving import ServeConfig, Server, place
from runtime.wire.protocol.token import read_token
from runtime.wire.transports import BusyError, TransportError, open_transport

X = np.random.default_rng(0).standard_normal((2, *IMAGE), np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_small_bundle(tmp_path_factory.mktemp("serving") / "old")


@pytest.fixture(scope="module")
def newer(tmp_path_factory):
    return write_small_bundle(tmp_path_factory.mktemp("serving") / "new", image_seed=1)


def read(url):
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read().decode()


def ask(url, x=X, **options):
    with open_transport(url, **options) as transport:
        return transport.infer(FROM_IMAGE, x, bits=32, timeout_s=10).output


class Serving:
    """`nas serve` in a process of its own."""

    def __init__(self, *words):
        self.process = subprocess.Popen(
            [sys.executable, "-c", "from nas.cli import main; main()", "serve", *map(str, words)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
        self.line = self.process.stdout.readline()
        self.urls = re.findall(r"\w+://[^\s,]+", self.line)

    def end(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        _, told = self.process.communicate(timeout=60)
        return self.process.returncode, told

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_serve_says_what_it_serves_answers_on_every_front_and_ends_with_zero(folder, how):
    words = ["--listen", "grpc://127.0.0.1:0", "--listen", "http://127.0.0.1:0", "--metrics", "127.0.0.1:0"]
    with Serving(folder, *words) as serving:
        assert re.match(r".*: 2 models \(host, f32; \d+ workers? of \d+ threads?\) on ", serving.line)
        metrics, *fronts = serving.urls
        first, second = (ask(url) for url in fronts)
        np.testing.assert_allclose(first, second, rtol=1e-5)
        text = read(metrics)
        assert re.search(rf'^nas_requests_total{{model="{FROM_IMAGE}",outcome="ok"}} 2.0$', text, re.M)
        assert read(metrics.replace("/metrics", "/ready")) == "ok\n"
        status, told = serving.end(how)
    assert status == 0, told
    assert "Traceback" not in told


def test_several_processes_answer_on_one_port_and_swap_and_end_together(folder, newer, tmp_path):
    link = tmp_path / "bundle"
    link.symlink_to(folder)
    words = ["--listen", "http://127.0.0.1:0", "--listen", "grpc://127.0.0.1:0", "--processes", "2", "--workers", "1"]
    with Serving(link, *words) as serving:
        assert re.match(r".*: 2 processes, each of 2 models \(host, f32; 1 worker", serving.line)
        rest_url, grpc_url = serving.urls
        children = Path(f"/proc/{serving.process.pid}/task/{serving.process.pid}/children").read_text().split()
        old = ask(rest_url)
        np.testing.assert_allclose(ask(grpc_url), old, rtol=1e-5)
        link.unlink()
        link.symlink_to(newer)
        serving.process.send_signal(signal.SIGHUP)
        until(lambda: all(np.abs(ask(url) - old).max() > 1e-2 for url in [rest_url] * 8 + [grpc_url] * 8))
        status, told = serving.end()
    assert status == 0, told
    until(lambda: not any(Path(f"/proc/{child}").exists() for child in children))


def test_with_several_processes_options_that_cannot_be_are_refused(folder):
    with pytest.raises(ConfigError, match="metrics need a port"):
        Processes(ServeConfig(bundle=folder, metrics="127.0.0.1:0"), 2)
    with pytest.raises(ConfigError, match="is off"):
        Processes(ServeConfig(bundle=folder, listen=("ftp://127.0.0.1:1",)), 2)
    with pytest.raises(ConfigError, match="known are host"):
        Processes(ServeConfig(bundle=folder, listen=("http://127.0.0.1:0",), target="pi4"), 2)


def test_a_hang_up_signal_swaps_the_bundle_behind_a_link_and_a_bad_one_is_refused(folder, newer, tmp_path):
    link = tmp_path / "bundle"
    link.symlink_to(folder)

    def point(where):
        new = tmp_path / "next"
        new.symlink_to(where)
        new.replace(link)

    with Serving(link, "--listen", "http://127.0.0.1:0", "--metrics", "127.0.0.1:0") as serving:
        metrics, url = serving.urls
        old = ask(url)
        point(tmp_path)  # no bundle
        serving.process.send_signal(signal.SIGHUP)
        until(lambda: 'nas_swaps_total{outcome="refused"} 1' in read(metrics))
        np.testing.assert_array_equal(ask(url), old)
        point(newer)
        serving.process.send_signal(signal.SIGHUP)
        until(lambda: 'nas_swaps_total{outcome="ok"} 1' in read(metrics))
        assert np.abs(ask(url) - old).max() > 1e-2
        status, told = serving.end()
    assert status == 0
    assert "the new bundle is refused, the old one goes on" in told


def until(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came to this"
        time.sleep(0.02)


def test_what_is_asked_before_the_end_is_answered_and_later_is_told_so(folder):
    """Under load, a caller gets right answers until it is refused or nobody is there; never anything else."""
    server = Server(ServeConfig(bundle=folder, listen=("grpc://127.0.0.1:0",), drain_s=10))
    url, wanted, outcomes = server.urls[0], ask(server.urls[0]), []

    def keep_asking():
        with open_transport(url) as transport:
            while True:
                try:
                    output = transport.infer(FROM_IMAGE, X, bits=32, timeout_s=10).output
                except TransportError as error:
                    outcomes.append(type(error).__name__)
                    return
                np.testing.assert_allclose(output, wanted, rtol=1e-4, atol=1e-5)
                outcomes.append("ok")

    asking = [threading.Thread(target=keep_asking) for _ in range(6)]
    for one in asking:
        one.start()
    time.sleep(0.3)
    assert server.stop()
    for one in asking:
        one.join(20)
    assert not any(one.is_alive() for one in asking)
    assert outcomes.count("ok") > 6
    assert set(outcomes) <= {"ok", "BusyError", "Unreachable"}


def test_while_it_drains_health_says_so(folder):
    server = Server(ServeConfig(bundle=folder, listen=("http://127.0.0.1:0",), metrics="127.0.0.1:0"))
    metrics, url = server.urls
    server.engine.drain(1)
    with pytest.raises(urllib.error.HTTPError, match="503"):
        read(metrics.replace("/metrics", "/ready"))
    assert read(metrics.replace("/metrics", "/live")) == "ok\n"
    with pytest.raises(BusyError):
        ask(url)
    assert server.stop()


def test_a_watched_bundle_is_swapped_once_it_has_settled(folder, newer, tmp_path):
    link = tmp_path / "bundle"
    link.symlink_to(folder)
    watch = Watch(link)
    assert not watch.changed()
    link.unlink()
    assert not watch.changed()
    link.symlink_to(newer)
    assert [watch.changed() for _ in range(4)] == [False, True, False, False]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"listen": ()}, "nowhere"),
        ({"listen": ("ftp://127.0.0.1:1",)}, "it must be one of grpc"),
        ({"listen": ("grpc://127.0.0.1:99999",)}, "is off"),
        ({"listen": ("grpcs://127.0.0.1:0",)}, "needs a certificate"),
        ({"max_queue": 0}, "at least 1"),
        ({"keep_old_s": -1.0}, "keep_old_s"),
        ({"target": "pi4"}, "known are host"),
        ({"metrics": "127.0.0.1:0/x"}, "is off"),
    ],
)
def test_options_that_cannot_be_are_refused(folder, options, why):
    with pytest.raises(ConfigError, match=why):
        Server(ServeConfig(**{"bundle": folder, "listen": ("http://127.0.0.1:0",)} | options))


def test_an_address_that_is_taken_is_refused_and_everything_is_put_away(folder):
    with Server(ServeConfig(bundle=folder, listen=("http://127.0.0.1:0",))) as server:
        before = threading.active_count()
        with pytest.raises(ConfigError, match="cannot listen"):
            Server(ServeConfig(bundle=folder, listen=("http://127.0.0.1:0", server.urls[0])))
        assert threading.active_count() == before


def test_addresses_have_their_protocols_ports():
    assert place("grpc://host") == ("grpc", "host", 8001)
    assert place("https://[::1]") == ("https", "::1", 8000)


def test_a_token_is_asked_for(folder, tmp_path):
    file = tmp_path / "token"
    file.write_text(" secret-1\n")
    config = ServeConfig(bundle=folder, listen=("http://127.0.0.1:0",), token=read_token(file))
    with Server(config) as server:
        ask(server.urls[0], token="secret-1")
        with pytest.raises(TransportError):
            ask(server.urls[0])


@pytest.mark.parametrize("content", ["", "two words", "ünicode"])
def test_what_is_no_token_is_refused(tmp_path, content):
    file = tmp_path / "token"
    file.write_text(content)
    with pytest.raises(ConfigError, match="token"):
        read_token(file)


def test_two_servers_in_one_process_count_apart_and_tell_of_the_process():
    first, second = (EngineMeasures({"nas_here": ("Now.", lambda: 3)}) for _ in range(2))
    first.ended("m", "busy")
    first.answered("m", 0.004, 12, 8)
    first.ran("m", 4, 0.3)
    told, other = (generate_latest(one.registry).decode() for one in (first, second))
    for line in (
        'nas_requests_total{model="m",outcome="busy"} 1.0',
        'nas_requests_total{model="m",outcome="ok"} 1.0',
        'nas_tensor_bytes_total{direction="in"} 12.0',
        'nas_wait_seconds_bucket{le="0.002",model="m"} 0.0',
        'nas_wait_seconds_bucket{le="0.005",model="m"} 1.0',
        'nas_batch_images_sum{model="m"} 4.0',
        "nas_here 3.0",
    ):
        assert line in told.splitlines()
        assert line not in other.splitlines() or line == "nas_here 3.0"
    assert re.search(r"^process_resident_memory_bytes [1-9]", told, re.M)


def test_the_metrics_server_knows_its_paths_only():
    server = MetricsServer(EngineMeasures({}).registry, {"/ready": lambda: False})
    server.start()
    try:
        for path, status in (("/ready", "503"), ("/etc/passwd", "404")):
            with pytest.raises(urllib.error.HTTPError, match=status):
                read(f"http://127.0.0.1:{server.port}{path}")
    finally:
        server.stop()


def test_serving_imports_neither_torch_nor_tvm():
    code = "import sys, json, runtime.server.serving; print(json.dumps(sorted({*sys.modules})))"
    loaded = json.loads(subprocess.check_output([sys.executable, "-c", code], text=True, timeout=60))
    assert not {"torch", "tvm", "tvm_ffi"} & set(loaded)
