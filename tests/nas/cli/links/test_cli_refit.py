"""`nas refit` writes mended profiles and what was met, and prints how far off they were."""

import sys

import msgspec
import pytest

from modeltree.layers import LayerSpec
from modeltree.met import Met, Timed, read_met, write_met
from modeltree.profiles import load_profile
from nas.cli import main

LAYER = LayerSpec(op="conv", in_channels=64, out_channels=64, out_height=32, out_width=32, kernel=(3, 3))
PHONE = load_profile("phone")


def met(times, *, count=6, device="phone"):
    """Blocks of one to six layers, which take so many times what the profile says."""
    blocks = {}
    for i in range(1, count + 1):
        ms = PHONE.compute_ms([LAYER] * i)
        blocks[f"{i:020x}"] = Timed(predicted_ms=ms, ms=times * ms, count=20, layers=(LAYER,) * i)
    return Met(
        kind="field", device=device, cloud="cloud_gpu", origin="a field run", blocks=blocks, rests={}, encodings=()
    )  # fmt: skip


@pytest.fixture
def refit(monkeypatch, capsys, tmp_path):
    """What the command line prints, and its status; files lie in `tmp_path`."""
    monkeypatch.chdir(tmp_path)

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["nas", "refit", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        told = capsys.readouterr()
        return ended.value.code or 0, told.out + told.err

    return run


def test_profiles_and_what_was_met_are_written_and_errors_told(refit, tmp_path):
    write_met(met(0.25), tmp_path / "met.json")
    write_met(met(0.25, count=9), tmp_path / "another.json")
    status, text = refit("met.json", "--check", "another.json", "--out", "out")
    assert status == 0
    mended = load_profile(tmp_path / "out" / "device.json")
    assert mended.call_ms + mended.compute_ms([LAYER] * 20) == pytest.approx(
        0.25 * PHONE.compute_ms([LAYER] * 20), rel=0.02
    )
    assert read_met(tmp_path / "out" / "met.json") == met(0.25)
    rows = [line.split() for line in text.splitlines() if line.split()[:1] == ["device"]]
    assert [row[1] for row in rows] == ["6", "9"]
    assert [float(row[2]) for row in rows] == [300, 300]  # four times too much
    assert all(float(row[3]) < 3 for row in rows)
    assert load_profile(tmp_path / "out" / "cloud.json") == msgspec.structs.replace(
        load_profile("cloud_gpu"), name="cloud_gpu_met", origin=load_profile(tmp_path / "out" / "cloud.json").origin
    )


def test_what_was_predicted_with_another_profile_is_no_check(refit, tmp_path):
    write_met(met(2.0), tmp_path / "met.json")
    write_met(met(2.0, device="pi4"), tmp_path / "another.json")
    status, text = refit("met.json", "--check", "another.json")
    assert (status, text.count("\n")) == (2, 1)
    assert "--check takes what was predicted with phone and cloud_gpu" in text
