"""What `nas doctor` says of a machine, a bundle and a real server."""

import json
import re
import shutil
import socket
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from certificates import Authority
from forked_run import compiled
from small_bundle import write_small_bundle

from runtime import diagnosis
from runtime.diagnosis import FAIL, OK, WARN, Visit, diagnose
from runtime.server.fronts.admission import ServerTls
from runtime.server.serving import ServeConfig, Server


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return compiled(tmp_path_factory.mktemp("bundle"))


def by_name(findings):
    return {one.what: one for one in findings}


def test_a_sound_bundle_for_this_machine_is_well(bundle):
    findings = by_name(diagnose(Visit(bundle=bundle)))
    assert {findings[what].state for what in ("Python", "numpy", "msgspec", "bundle", "target host", "clock")} == {OK}
    assert "all sound" in findings["bundle"].says
    assert all(one.do for one in findings.values() if one.state != OK)


def test_a_damaged_library_is_named(bundle, tmp_path):
    damaged = shutil.copytree(bundle, tmp_path / "bundle")
    library = next((damaged / "lib/host").glob("*.so"))
    library.write_bytes(library.read_bytes()[:-1] + b"x")
    finding = by_name(diagnose(Visit(bundle=damaged)))["bundle"]
    assert finding.state == FAIL
    assert library.name in finding.says


def test_no_bundle_is_one_finding_and_no_traceback(tmp_path):
    finding = by_name(diagnose(Visit(bundle=tmp_path)))["bundle"]
    assert (finding.state, "is not a bundle" in finding.says) == (FAIL, True)


@pytest.mark.parametrize(("now_s", "state"), [(0.0, FAIL), (1767225600.0, OK), (1767225599.0, FAIL)])
def test_a_clock_before_the_bundle_was_made_is_told(now_s, state):
    made = SimpleNamespace(provenance=SimpleNamespace(date="2026-01-01"))  # 1767225600 is its first second
    (finding,) = diagnosis._clock(made, now_s)
    assert finding.state == state


def test_a_processor_that_lacks_something_is_told_by_feature(bundle, monkeypatch):
    monkeypatch.setattr(diagnosis, "lacking", lambda entry: ["avx2"])
    finding = by_name(diagnose(Visit(bundle=bundle)))["target host"]
    assert (finding.state, finding.says) == (FAIL, "not for this machine: needs avx2")


def test_too_little_memory_is_told(bundle, monkeypatch):
    monkeypatch.setattr(diagnosis, "_free_bytes", lambda: 1 << 20)
    assert by_name(diagnose(Visit(bundle=bundle)))["target host"].state == FAIL


def test_a_server_that_is_not_there_is_told():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    finding = by_name(diagnose(Visit(server=f"http://127.0.0.1:{port}")))["server"]
    assert finding.state == FAIL
    assert finding.do


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_a_server_of_the_same_bundle_is_well_and_another_one_lacks_its_rests(bundle, tmp_path, scheme):
    with Server(ServeConfig(bundle=bundle, listen=(f"{scheme}://127.0.0.1:0",))) as server:
        same = by_name(diagnose(Visit(bundle=bundle, server=server.urls[0])))
        assert (same["server"].state, same["versions"].state) == (OK, OK)
        assert "round trip" in same["server"].says
        other = write_small_bundle(tmp_path / "other")
        assert by_name(diagnose(Visit(bundle=other, server=server.urls[0])))["versions"].state == FAIL


@pytest.mark.parametrize("scheme", ["grpcs", "https"])
def test_a_certificate_is_told_by_its_days_and_one_of_a_stranger_is_refused(bundle, tmp_path, scheme):
    ours, strange = Authority(tmp_path / "ours", "ours"), Authority(tmp_path / "strange", "strange")
    tls = ServerTls(**ours.signed("server", days=100))
    with Server(ServeConfig(bundle=bundle, listen=(f"{scheme}://127.0.0.1:0",), tls=tls)) as server:
        good = by_name(diagnose(Visit(server=server.urls[0], ca=ours.pem)))
        assert (good["certificate"].state, good["server"].state) == (OK, OK)
        assert re.fullmatch(r"good for (99|100) more days", good["certificate"].says)
        late = by_name(diagnose(Visit(server=server.urls[0], ca=ours.pem), now_s=lambda: time.time() + 90 * 86_400))
        assert late["certificate"].state == WARN
        bad = by_name(diagnose(Visit(server=server.urls[0], ca=strange.pem)))
        assert (bad["certificate"].state, bad["server"].state) == (FAIL, FAIL)


def test_a_url_that_is_none_is_told():
    assert by_name(diagnose(Visit(server="ftp://x")))["server"].state == FAIL


def test_what_is_told_goes_to_people_and_to_programs(bundle):
    for words in ([], ["--json"]):
        ended = subprocess.run(
            [sys.executable, "-c", "from nas.cli import main; main()", "doctor", str(bundle), *words],
            capture_output=True, text=True,
        )  # fmt: skip
        assert ended.returncode == 0, ended.stderr
        told = {one["what"] for one in json.loads(ended.stdout)} if words else ended.stdout
        assert "target host" in told
