"""The time of a whole search is estimated once, before its long part, from what there is to do."""

import pytest
from networks import tiny

from nas.config import SearchConfig
from nas.data import load_dataset
from nas.expected_time import Expected, expected
from nas.training.train import recipe

PASS_S = 2e-3


@pytest.fixture
def reckoned(monkeypatch):
    """What is expected of a search of a small network on the digits, a pass taking so many seconds."""
    data = load_dataset("digits", image_size=32)

    def reckon(pass_s=PASS_S, *, library=None, trained=False, **changes):
        monkeypatch.setattr("nas.expected_time.seconds_a_pass", lambda network: pass_s)
        training = None if trained else recipe(data)
        return expected(SearchConfig(**changes), tiny(), data, training=training, library=library)

    return reckon


def test_more_to_do_is_expected_to_take_longer(reckoned):
    usual = reckoned().total_s
    assert usual == pytest.approx(sum(reckoned().seconds.values()))
    for more in (reckoned(3 * PASS_S), reckoned(budget=8000), reckoned(K=4), reckoned(finetune_steps=600),
                 reckoned(executor="serial")):  # fmt: skip
        assert more.total_s > 1.05 * usual
    for less in (reckoned(trained=True), reckoned(finetune_steps=0), reckoned(techniques=("svd",))):
        assert less.total_s < usual


def test_what_the_cache_holds_is_not_counted(reckoned, tmp_path):
    fresh = reckoned(trained=True, library=tmp_path)
    for unit in range(len(tiny().units)):
        for rate in (0.75, 0.5, 0.25, 0.125):
            (tmp_path / f"{unit:03d}_prune_{rate:g}.safetensors").touch()
        for kind in ("tucker2_0.5", "tucker2_0.25", "svd_0.25", "svd_0.125", "low_rank_0.25", "mobilenet_1"):
            (tmp_path / f"{unit:03d}_{kind}.safetensors").touch()
    (tmp_path / "calibration_1.json").touch()
    known = reckoned(trained=True, library=tmp_path)
    assert fresh.variants > 3
    assert known.variants == known.seconds["variant library"] == known.seconds["predictor"] == 0
    assert known.seconds["fine-tuning"] == fresh.seconds["fine-tuning"]


def test_a_search_says_it_in_one_line_on_standard_error_unless_it_prints_json(nas, tmp_path, monkeypatch):
    told = []

    def run(config, folder, *, foresees, **rest):
        told.append(foresees)
        if foresees is not None:
            foresees(Expected(seconds={"search": 70.0, "fine-tuning": 5.0}, image_ms=1.234, variants=7))
        raise KeyboardInterrupt

    monkeypatch.setattr("nas.search.search", run)
    status, out, lines = nas("search")
    assert (status, out) == (130, "")
    assert lines[0] == (
        "nas: about 1:15 min for the whole search, an estimate (search 1:10 min, fine-tuning 5 s) from one pass of the "
        "network, timed as 1.2 ms an image, and up to 7 variants to make"
    )
    assert nas("search", "--json")[2] == lines[1:]
    assert told[1] is None
