"""`nas stream`: a server, a relay and a device in processes of their own; every task has a line in the record."""

import json
import sys

import pytest
from exits_run import compiled

from nas.cli import main


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return compiled(tmp_path_factory.mktemp("stream"))


def played(bundle, out, monkeypatch, *words):
    argv = ["nas", "stream", bundle, "--devices", 1, "--mbps", 10, "--policy", "edf", "--json", "--out", out, *words]
    monkeypatch.setattr(sys, "argv", list(map(str, argv)))
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 0
    return json.loads((out / "stream.json").read_bytes())


def test_a_stream_is_played_and_a_task_set_of_raycloudsim_likewise(bundle, tmp_path, monkeypatch, capsys):
    drawn = played(bundle, tmp_path / "drawn", monkeypatch, "--tasks", 5, "--rate", 1, "--slot-ms", 50, "--k", 100)
    lines = drawn["runs"][0]["lines"]
    assert [line["number"] for line in lines] == [0, 1, 2, 3, 4]
    assert all(line["answered_by"] in ("device", "server") and line["exit"] for line in lines)
    assert json.loads(capsys.readouterr().out)[0]["tasks"] == 5
    assert "<svg" in (tmp_path / "drawn" / "stream.html").read_text()

    csv = tmp_path / "set.csv"
    csv.write_text(
        "TaskName,GenerationTime,TaskID,TaskSize,CyclesPerBit,TransBitRate,DDL,SrcName\n"
        "t0,1.0,0,10,783,40,570,n21\nt1,2.5,1,100,113,10,600,n8\nt2,3.0,2,55,402,30,300,n21\n"
    )
    link = tmp_path / "link.csv"
    link.write_text("# name=two speeds\n# end_s=2.0\n# rtt_ms=2.0\ntime_s,bandwidth_mbps\n0.0,20.0\n1.0,5.0\n")
    theirs = played(bundle, tmp_path / "theirs", monkeypatch, "--tasks", csv, "--slot-ms", 50, "--link", link)
    lines = theirs["runs"][0]["lines"]
    assert [(line["due_ms"], line["images"], line["deadline_ms"]) for line in lines] == [
        (50.0, 1, 28_500.0), (125.0, 10, 30_000.0), (150.0, 6, 15_000.0),
    ]  # fmt: skip
    assert all(line["answered_by"] != "nobody" for line in lines)
    assert theirs["tasks_from"] == str(csv)
    assert (theirs["link"], theirs["mbps"], theirs["rtt_ms"]) == ("two speeds", 12.5, 2.0)
