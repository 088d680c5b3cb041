"""`nas field --policy exact` over a tree with exits and coded hand-overs: real processes, every answer checked."""

import json
import sys

import numpy as np
import pytest
from exits_run import EIGHT_BITS, EXIT, FAST_MBPS, FOUR_BITS, SURE, answered, compiled, entropy, image, threshold
from html_pages import Page
from PIL import Image

from modeltree.link.traces import Trace, write_trace
from nas.cli import main
from nas.field.record import decode_field

COUNT = 24


def test_a_field_run_is_driven_by_the_exact_rule_and_tells_the_shares_of_exits_and_bits(tmp_path, monkeypatch, capsys):
    compiled(tmp_path)
    (tmp_path / "images").mkdir()
    for seed in range(12):
        Image.fromarray(np.moveaxis(image(seed), 0, -1)).save(tmp_path / "images" / f"{seed:02d}.png")
    flat = Trace(
        name="flat", origin="test", time_s=np.zeros(1), end_s=9.0, rtt_ms=4.0, bandwidth_mbps=np.array([FAST_MBPS])
    )
    write_trace(flat, tmp_path / "flat.csv")
    argv = ["nas", "field", tmp_path / "bundle", "--trace", tmp_path / "flat.csv", "--count", COUNT, "--every-ms", 50,
            "--link", "relay", "--images", tmp_path / "images", "--policy", "exact", "--threads", 1, "--json",
            "--check", tmp_path / "run", "--tolerance", 0.05, "--out", tmp_path / "out"]  # fmt: skip
    monkeypatch.setattr(sys, "argv", list(map(str, argv)))
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 0  # and so every answer is that of torch on the path it says
    record = decode_field((tmp_path / "out" / "field.json").read_bytes(), "field.json")
    (run,) = record.methods
    assert record.policy == "exact"
    assert {leaf.leaf: (leaf.exit, leaf.bits) for leaf in run.leaves} == {
        1: (None, None), FOUR_BITS: (None, 4), SURE: (1, None), EXIT: (2, None), EIGHT_BITS: (None, 8),
    }  # fmt: skip
    ends = [shot.nodes[-1] for shot in run.shots]
    assert len(ends) == COUNT
    # the end of the network is never worth its time; what it sends depends on how fast this machine lets the link look
    assert set(ends) <= {FOUR_BITS, SURE, EXIT, EIGHT_BITS}
    # images are resized to what they are already, and played twice
    assert ends.count(SURE) == 2 * sum(entropy(answered(SURE, image(seed))) <= threshold() for seed in range(12))
    told = json.loads(capsys.readouterr().out)
    assert told["policy"] == "exact"
    shares = told["methods"][0]["endings_percent"]
    assert shares["exit 1"] == pytest.approx(100 * ends.count(SURE) / COUNT)
    assert sum(shares.values()) == pytest.approx(100)
    assert len(record.methods[0].emulated_ms) == COUNT
    text = Page((tmp_path / "out" / "field.html").read_text()).text
    assert "Exits and bits" in text
    assert "driven by exact" in text
