"""nas record at the command line: a whole file however it ends, and nothing where nothing was recorded."""

import re
import sys
import time

import pytest

from modeltree.link.traces import read_trace
from nas.cli import main
from runtime.wire.transports import Exchange, Refused, Unreachable

MBPS, RTT_S = 8.0, 0.004
QUICK = ("--seconds", 0.5, "--every-ms", 50)


class Link:
    """A server at 8 Mbit/s and 4 ms; what `fails` raises comes instead of the probe's answer."""

    def __init__(self, fails=lambda probes: None):
        self.fails, self.probes = fails, 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def ready(self, timeout_s):
        return True

    def probe(self, size_bytes, timeout_s):
        self.probes += 1
        self.fails(self.probes)
        seconds = RTT_S + size_bytes / (125e3 * MBPS)
        time.sleep(seconds)
        return Exchange(sent_bytes=size_bytes, received_bytes=0, seconds=seconds, server_s=0.0)


@pytest.fixture
def nas(monkeypatch, capsys, tmp_path):
    """Run `nas record` in this process against a link; returns (status, standard output, lines on standard error)."""
    monkeypatch.chdir(tmp_path)

    def call(link, *words):
        asked = {}

        def opened(url, **options):
            asked.update(options, url=url)
            return link

        monkeypatch.setattr("runtime.wire.transports.open_transport", opened)
        words = ["nas", "record", "--server", "grpc://secret-host:1", *map(str, words)]
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as ended:
            main()
        told = capsys.readouterr()
        call.asked = asked
        return ended.value.code or 0, told.out, told.err.splitlines()

    return call


def test_a_recording_is_a_trace_that_says_what_it_is_but_not_where(nas, tmp_path):
    status, told, error = nas(Link(), "--out", "office.csv", *QUICK)
    assert (status, error) == (0, [])
    assert re.match(
        r"office\.csv: 0\.5 s, mean 8\.\d\d Mbit/s \(quartiles .*\), round trip 4\.\d ms; 0\.\d MB sent", told
    )
    trace = read_trace(tmp_path / "office.csv")
    assert trace.mean_mbps == pytest.approx(MBPS, rel=0.1)
    assert trace.name == "office"
    assert re.fullmatch(r"nas record, uplink, \d{4}-\d\d-\d\d \d\d:\d\d UTC, a value every 50 ms", trace.origin)
    assert "secret-host" not in (tmp_path / "office.csv").read_text()


def interrupt(probes):
    if probes > 12:
        raise KeyboardInterrupt


def test_ctrl_c_ends_it_early_and_what_was_recorded_is_written(nas, tmp_path):
    status, told, _ = nas(Link(interrupt), "--out", "t.csv", "--seconds", 60, "--every-ms", 50)
    assert status == 0
    assert told.startswith("t.csv: 0.")
    assert read_trace(tmp_path / "t.csv").mean_mbps == pytest.approx(MBPS, rel=0.1)


def test_a_server_that_says_no_half_way_is_told_and_what_was_recorded_is_written(nas, tmp_path):
    def fails(probes):
        if probes > 12:
            raise Refused("another token is needed: pass --token-file")

    status, told, error = nas(Link(fails), "--out", "t.csv", "--seconds", 60, "--every-ms", 50)
    assert status == 2
    assert told.startswith("t.csv: ")
    assert error == ["nas: another token is needed: pass --token-file"]
    assert (tmp_path / "t.csv").exists()


def test_a_server_that_is_not_there_is_one_line_and_no_file(nas, tmp_path):
    def fails(probes):
        raise Unreachable("no connection")

    assert nas(Link(fails), "--out", "t.csv", *QUICK) == (2, "", ["nas: no connection"])
    assert list(tmp_path.iterdir()) == []


def test_a_recording_is_never_written_over(nas, tmp_path):
    (tmp_path / "t.csv").write_text("mine")
    status, _, error = nas(Link(), "--out", "t.csv", *QUICK)
    assert (status, error) == (2, ["nas: t.csv is there already: pass another --out, or remove it"])
    assert (tmp_path / "t.csv").read_text() == "mine"


def test_a_folder_that_is_not_there_is_named_before_anything_is_sent(nas):
    link = Link()
    status, _, error = nas(link, "--out", "none/t.csv", *QUICK)
    assert (status, link.probes) == (2, 0)
    assert "none is not a folder" in error[0]


def test_token_and_certificate_are_handed_on(nas, tmp_path):
    (tmp_path / "token").write_text("abc\n")
    (tmp_path / "ca.pem").write_text("")
    nas(Link(), "--out", "t.csv", *QUICK, "--token-file", "token", "--ca", "ca.pem")
    assert (nas.asked["token"], str(nas.asked["ca"])) == ("abc", "ca.pem")
