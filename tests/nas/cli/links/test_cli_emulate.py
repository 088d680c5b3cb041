"""nas emulate at the command line: tables, a verdict, JSON, a page; one line for what can be mended."""

import json
import re
import subprocess
import sys

import pytest
from bundles import tree, write_bundle
from html_pages import alone, charts_of

from modeltree.tree import encode_tree
from nas.config import SearchConfig, encode_config

CSV = "# rtt_ms=10\n# end_s=10\ntime_s,bandwidth_mbps\n0,8\n5,1\n"
MEAN_MS = (10 + 3.072 + 0.9 + 80) / 2
"""Half of the inferences hand the image over at 8 Mbit/s, half take 80 ms on the device."""


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    (folder / "methods").mkdir(parents=True)
    (folder / "config.json").write_bytes(encode_config(SearchConfig()))
    (folder / "summary.json").write_text(json.dumps({"version": 1, "config": {"seed": 0}}))
    for file in ("tree.json", "methods/tree.json", "methods/surgery.json"):
        (folder / file).write_bytes(encode_tree(tree()))
    return folder


@pytest.fixture
def trace(tmp_path):
    (tmp_path / "t.csv").write_text(CSV)
    return tmp_path / "t.csv"


def row_of(told, method):
    return next(line.split() for line in told.splitlines() if line.split()[:1] == [method])


def test_a_run_is_emulated_over_a_trace(nas, run, trace):
    status, told, error = nas("emulate", run, "--trace", trace, "--starts", 10)
    assert (status, error) == (0, [])
    assert told.startswith("t: 4.50 Mbit/s on average, round trip 10 ms, 10 inferences in 10 s")
    mean_ms, _, accuracy, _, handed_over, over_oracle, over_surgery = map(float, row_of(told, "tree")[1:])
    assert mean_ms == pytest.approx(MEAN_MS, abs=0.005)
    assert (accuracy, handed_over, over_surgery) == (pytest.approx(91.25), 50.0, 0.0)
    assert over_oracle >= 0
    assert "Emulated: predicted compute, exact transfer" in told
    assert told.splitlines()[-1].startswith("* Emulated: ")


def test_several_links_end_with_their_mean(nas, run, trace):
    _, told, _ = nas("emulate", run, "--trace", trace, "--trace", "4g_indoor_static", "--rtt-ms", 20)
    assert "Mean over 2 links" in told
    assert told.count("round trip 20 ms") == 2
    assert told.count("oracle %") == 3


def test_without_a_trace_it_is_the_one_that_was_searched_for(nas, run):
    _, told, _ = nas("emulate", run, "--starts", 3)
    assert told.startswith("wifi_weak_indoor: ")


def test_the_json_has_every_number_and_every_path(nas, run, trace):
    status, told, _ = nas("emulate", run, "--trace", trace, "--starts", 10, "--json")
    found = json.loads(told)
    assert status == 0
    (link,) = found["links"]
    assert (found["origin"], found["measure"], link["rtt_ms"], link["starts"]) == ("emulated", "perfect", 10.0, 10)
    method = next(one for one in link["methods"] if one["method"] == "tree")
    assert method["paths"] == {"1": 0.5, "2": 0.5}
    assert method["latency_ms"] == pytest.approx(MEAN_MS)
    assert found["mean"] == {"methods": link["methods"], "oracle": link["oracle"]}
    assert len(found["verdict"]) == 1


def test_measuring_as_the_runtime_does_is_set_beside_perfect_measuring(nas, run, trace):
    _, told, _ = nas("emulate", run, "--trace", trace, "--measure", "estimated")
    assert "vs perfect %" in told
    assert "the bandwidth is as the runtime estimates it" in told


def test_the_page_needs_nothing_but_itself_and_draws_every_link(nas, run, trace, tmp_path):
    (tmp_path / "evil.csv").write_text("# name=<script>alert(1)</script>\n" + CSV)
    _, told, _ = nas("emulate", run, "--trace", trace, "--trace", "evil.csv", "--out", "page.html")
    assert told.splitlines()[-1] == "page.html"
    text = (tmp_path / "page.html").read_text()
    words = alone(text).text
    assert len(charts_of(text)) == 2
    assert "<script>alert" not in text
    assert "Mean over links" in words
    assert "1: 50 %, 2: 50 %" in words


def test_a_bundle_and_a_folder_of_bundles_will_do(nas, trace, tmp_path):
    write_bundle(tmp_path / "bundles" / "one")
    for path in ("bundles/one", "bundles"):
        status, told, _ = nas("emulate", path, "--trace", trace, "--starts", 10)
        assert status == 0
        assert float(row_of(told, "tree")[1]) == pytest.approx(MEAN_MS, abs=0.005)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["nothing"], "nothing is no run directory, no bundle and no folder of bundles: pass one of them"),
        (["run", "--measure", "guess"], "unknown measure 'guess': known are estimated, perfect"),
        (["run", "--trace", "none.csv"], "cannot read trace none.csv"),
        (["run", "--trace", "5g"], "'5g': known are 4g_"),
    ],
)
def test_what_cannot_be_emulated_is_one_line(nas, run, words, why):
    status, told, error = nas("emulate", *words)
    assert (status, told, len(error)) == (2, "", 1)
    assert why in error[0]


def test_help_and_an_emulation_come_without_torch(run, trace):
    code = (
        f"import sys; sys.argv = ['nas', 'emulate', {str(run)!r}, '--trace', {str(trace)!r}]\n"
        "from nas.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
        "print('torch' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert re.search(r"^False$", found.stdout, re.M)
