"""The report: a page that needs nothing but itself and trusts no name."""

import math
import re
import xml.etree.ElementTree as ElementTree

import msgspec
import pytest
from html_pages import Page, alone, charts_of, without_scripts
from msgspec.structs import replace

from modeltree.errors import FormatError
from modeltree.link.bandwidth import BandwidthTypes
from modeltree.tree import Action, BandwidthFork, BitsFork, ExitFork, Handover, Leaf, ModelTree, Node
from nas.report import verdict, write_report
from nas.report.search.drawing import draw_tree
from nas.report.search.endings import endings_section
from nas.results.summary import PictureRow, Summary

EVIL = "</text></svg><script>alert(1)</script><img src=x onerror=\"alert('2')\">&amp;'"


def node(number, parent, bandwidth_types, **rest):
    level = 0 if parent is None else 1
    fields = {"partition": 2, "segments": 2, "actions": (), "device_ms": 10.0} | rest
    return Node(id=number, level=level, parent=parent, fork=BandwidthFork(types=bandwidth_types), **fields)


def leaf(chance):
    return Leaf(chance=chance, latency_ms=40.0, accuracy=90.0, accuracy_origin="measured")


def small_tree(*, place=1):
    half = (0.5, 0.5)
    types = BandwidthTypes(representative_mbps=(1.0, 8.0), edges_mbps=(4.0,), transition=(half, half), initial=half)
    pruned = Action(layer="conv2d", technique="prune", rate=0.5)
    handover = Handover(place=place, shape=(64, 8, 8), bytes=16384, bits=32)
    nodes = (
        node(0, None, (0,), actions=(pruned,), children=(2, 3)),
        node(1, None, (1,), partition=1, handover=handover, transfer_ms=27.0, cloud_ms=1.0, leaf=leaf(0.5)),
        node(2, 0, (0,), leaf=leaf(0.25)),
        node(3, 0, (1,), leaf=leaf(0.25)),
    )
    return ModelTree(
        base="vgg11", input_shape=(3, 32, 32), mean=(0.5,) * 3, std=(0.25,) * 3,
        classes=("a", "b"), places=(0, 2, 4), types=types, rtt_ms=25.0,
        device="pi4", cloud="gpu", trace="4g", nodes=nodes,
    )  # fmt: skip


def test_exits_by_confidence_and_bits_are_on_the_drawing():
    """Of the half that is slow four fifths leave through the head."""
    tree = small_tree()
    few = BitsFork(types=(1,), bits=4)
    crossing = node(1, None, (1,), partition=1, handover=replace(tree.nodes[1].handover, bits=4), leaf=leaf(0.5))
    nodes = (
        replace(tree.nodes[0], children=(2, 3, 4)), replace(crossing, fork=few),
        replace(tree.nodes[2], leaf=leaf(0.05)), replace(tree.nodes[3], leaf=leaf(0.05)),
        replace(tree.nodes[3], id=4, fork=ExitFork(exit=1, entropy=0.25), leaf=leaf(0.4)),
    )  # fmt: skip
    drawing = draw_tree(replace(tree, nodes=nodes, exits=(1,)))
    ElementTree.fromstring(drawing)
    words = Page(drawing).text
    for said in ("exit 1 if entropy <= 0.25 (80 %)", "Head 1", "type 1: at least 4 Mbit/s, 4 bits", "4 bits a number"):
        assert said in words


def method(name, reward, latency_ms, accuracy, **rest):
    along = {"latency_ms": latency_ms, "p95_latency_ms": 2 * latency_ms, "accuracy": accuracy, "reward": reward}
    return {
        "method": name, "reward": reward, "latency_ms": latency_ms, "accuracy": accuracy, "accuracy_origin": "measured",
        "latency_origin": "predicted", "predicted_reward": reward, "predicted_accuracy": accuracy, "evaluations": 10,
        "seconds": 1.5, "along_trace": along,
    } | rest  # fmt: skip


def full_summary():
    """A run where the tree wins: 40 ms against 100, 80 and 60; rewards by eq. 7 with the paper's weights."""
    return {
        "version": 1,
        "config": {"base": "vgg11", "K": 2, "seed": 0, "reward": {"latency_weight": 300.0}},
        "scenario": {
            "trace": "4g", "trace_origin": "synthetic", "rtt_ms": 25.0, "bandwidth_mbps": [1.0, 8.0],
            "edges_mbps": [4.0], "device": "pi4", "device_origin": "fitted", "cloud": "gpu", "cloud_origin": "fitted",
        },
        "base": {"name": "vgg11", "accuracy": 92.0, "macs": 153_000_000, "layers": 11, "places": [0, 2, 4]},
        "methods": [
            method("device_only", 324.0, 100.0, 92.0),
            method("cloud_raw", 270.0, 190.0, 92.0),
            method("cloud_jpeg", 346.0, 60.0, 91.0),
            method("surgery", 336.0, 80.0, 92.0),
            method("branch", 350.0, 50.0, 90.0),
            method("tree", 356.0, 40.0, 90.0),
            method("random", 351.0, 45.0, 89.0, accuracy_origin="predicted", along_trace=None),
            method("egreedy", 352.0, 44.0, 89.0, accuracy_origin="predicted", along_trace=None),
        ],
        "exact": {"reward": 357.1, "latency_ms": 39.0, "accuracy": 90.2, "found_percent": 99.7, "seconds": 0.1},
        "oracle_along_trace": {"latency_ms": 35.0, "reward": 360.0},
        "curves": {
            "tree": [[1, 300.0], [50, 350.0], [1000, 356.0]], "random": [[1, 290.0], [900, 351.0]],
            "egreedy": [[7, 352.0]],
        },
        "predictor": {"points": [[90.0, 89.5], [80.0, 78.0]], "rank_correlation": 0.97, "mean_error": 1.25},
        "branches": [{"leaf": i, "latency_ms": 40.0 + i, "accuracy": 90.0, "chance": 0.5} for i in (1, 2)],
        "along_trace": {
            "time_s": [0.0, 1.0, 2.0], "bandwidth_mbps": [1.0, 8.0, 2.0],
            "latency_ms": {"tree": [30.0, 50.0, 40.0], "surgery": [80.0, 80.0, 80.0]},
        },
        "dropped": [{"layer": "linear", "choice": "ksvd@0.25", "why": "saves no time on this device"}],
        "savings": [
            {"layer": "conv2d_3", "choice": "inner@0.5", "covers": 3, "base_ms": 1.5, "saves_ms": 0.625, "drop": 0.25}
        ],
        "finetuning": {"before": 85.0, "after": 90.0, "base": 92.0, "steps": 400},
        "seconds": {"base": 1.0, "search": 20.0, "total": 30.0},
        "provenance": {"commit": "abc123", "versions": {"torch": "2.13.0"}, "machine": "laptop", "date": "2026-01-01"},
    }  # fmt: skip


def bare_summary():
    """Everything that may be missing is None."""
    summary = full_summary()
    nullable = ("exact", "oracle_along_trace", "predictor", "along_trace", "finetuning")
    summary |= dict.fromkeys(nullable) | {"curves": {}, "branches": [], "dropped": [], "seconds": {}, "provenance": {}}
    summary["savings"] = None
    summary["methods"] = [entry | {"along_trace": None} for entry in summary["methods"]]
    return summary


def written(tmp_path, summary, tree=None):
    html = write_report(tmp_path, summary, tree or small_tree()).read_text(encoding="utf-8")
    for drawing in re.findall(r"<svg.*?</svg>", without_scripts(html), re.S):
        ElementTree.fromstring(drawing)
    for spec in charts_of(html):
        assert spec["datasets"]
    return html, Page(html)


def test_the_report_is_one_whole_file(tmp_path):
    path = write_report(tmp_path / "run", full_summary(), small_tree())
    assert path == tmp_path / "run" / "report.html"
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]


@pytest.mark.parametrize("summary", [full_summary(), bare_summary()], ids=["full", "bare"])
def test_the_page_needs_nothing_but_itself(tmp_path, summary):
    html, _ = written(tmp_path, summary)
    alone(html)


def test_every_section_is_there_and_seed_0_too(tmp_path):
    _, page = written(tmp_path, full_summary())
    for title in ("The tree", "Compared with the alternatives", "Search", "Accuracy against latency", "Along the trace",
                  "Can the accuracy predictor be trusted?", "Fine-tuning the tree", "Dropped before the search",
                  "Where the time went", "Configuration and provenance"):  # fmt: skip
        assert title in page.text
    for fact in ("prune@0.5", "ksvd@0.25", "place 1", "16.4 kB", "abc123", "153 million MACs", "0.970", "1.25 points"):
        assert fact in page.text
    assert re.search(r"seed\s+0\s", page.text)
    for kind in ("measured", "predicted", "simulated"):
        assert kind in page.text


def test_missing_parts_leave_no_empty_section(tmp_path):
    _, page = written(tmp_path, bare_summary())
    assert "mean latency" not in page.text
    for title in ("Search ", "Along the trace ", "trusted?", "Fine-tuning", "Dropped", "Where the time went"):
        assert title not in page.text
    assert "nan" not in page.text.lower().split()


@pytest.mark.parametrize(
    ("left", "headline"),
    [
        ([], "No method was compared, so there is no verdict."),
        (["tree"], "The model tree is the best choice: "),
        (["device_only"], "Splitting does not help here: keep everything on the device, "),
        (["random", "cloud_raw"], "Splitting does not help here: send the raw image to the cloud, "),
        (["egreedy"], "No method was compared, so there is no verdict."),
    ],
)
def test_any_method_may_be_absent(tmp_path, left, headline):
    summary = full_summary()
    summary["methods"] = [entry for entry in summary["methods"] if entry["method"] in left]
    _, page = written(tmp_path, summary)
    assert "The tree" in page.text
    assert verdict(summary)[0].startswith(headline)
    assert headline.strip() in page.text


def test_numbers_that_are_not_numbers_become_dashes(tmp_path):
    summary = full_summary()
    summary["predictor"] |= {"rank_correlation": math.nan, "points": [[math.nan, 1.0], [90.0, 89.0]]}
    summary["methods"][0] |= {"reward": math.nan, "latency_ms": math.inf}
    summary["along_trace"]["latency_ms"]["tree"] = [math.nan, 1.0, 2.0]
    html, _ = written(tmp_path, summary)
    assert "Rank correlation –" in html
    assert not re.search(r"\b(nan|inf)\b", without_scripts(html))


def test_hostile_names_stay_text(tmp_path):
    def poison(value):
        if isinstance(value, dict):
            return {key: poison(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [poison(inner) for inner in value]
        return value + EVIL if isinstance(value, str) else value

    summary = poison(full_summary())
    summary["config"][EVIL] = [EVIL, {EVIL: EVIL}]
    summary["curves"][EVIL] = [[1, 300.0], [10, 310.0]]
    summary["along_trace"]["latency_ms"][EVIL] = [1.0, 2.0, 3.0]
    summary["seconds"][EVIL] = 3.0
    summary["methods"] += full_summary()["methods"]
    tree = small_tree()
    first = msgspec.structs.replace(
        tree.nodes[0], actions=(Action(layer=EVIL, technique=EVIL), Action(layer="a", technique="<b>"))
    )
    tree = msgspec.structs.replace(tree, base=EVIL, device=EVIL, cloud=EVIL, trace=EVIL, nodes=(first, *tree.nodes[1:]))
    html, page = written(tmp_path, summary, tree)
    assert "<script>alert" not in html
    alone(html)
    assert "alert(1)" in page.text


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"version": 2}, "version"),
        ({"methods": [{"method": "tree"}]}, "methods"),
        ({"curves": {"tree": [["x", 1]]}}, "curves"),
        ({"branches": 7}, "branches"),
    ],
)
def test_what_is_not_a_summary_is_refused(tmp_path, change, where):
    with pytest.raises(FormatError, match=where):
        write_report(tmp_path, full_summary() | change, small_tree())
    assert list(tmp_path.iterdir()) == []


def test_a_tree_of_many_leaves_and_long_names_can_be_drawn(tmp_path):
    tree = small_tree()
    many = tuple(Action(layer=f"a_very_long_layer_name_{i}", technique="prune", rate=0.5) for i in range(40))
    tree = msgspec.structs.replace(tree, nodes=(msgspec.structs.replace(tree.nodes[0], actions=many), *tree.nodes[1:]))
    html, page = written(tmp_path, full_summary(), tree)
    assert "and 32 lines more" in page.text
    assert html.count("a_very_long_layer_name_39") == 2  # the tooltip and the text


def forked(summary, *, leaves=(0, 1), predicted=355.0, single=350.0):
    """The same run where the best path without forks is known, and the branch is predicted to be worth so much."""
    ms = {"unforked": 55.0, "device_only": 100.0, "tree": 40.0}
    states = [
        {"range": f"state {i}", "mbps": 1.0, "rtt_ms": 25.0, "chance": 0.5, "leaf": leaf, "path": f"way {leaf}",
         "latency_ms": ms}
        for i, leaf in enumerate(leaves)
    ]  # fmt: skip
    summary["methods"][4]["predicted_reward"] = predicted
    summary["methods"][5]["predicted_accuracy"] = 90.8
    return summary | {
        "link_states": states,
        "unforked": {"reward": single, "latency_ms": 55.0, "accuracy": 90.5, "path": "2 blocks here"},
    }


def test_the_page_says_which_leaf_serves_which_state_and_what_others_take(tmp_path):
    write_report(tmp_path, forked(full_summary()), small_tree())
    text = Page((tmp_path / "report.html").read_text()).text
    for said in (
        "What is done when",
        "state 0",
        "leaf 1: way 1",
        "Best path without forks",
        "55 ms",
        "2 blocks here",
    ):
        assert said in text
    write_report(tmp_path, full_summary(), small_tree())
    assert "What is done when" not in (tmp_path / "report.html").read_text()


def test_ways_to_send_the_picture_stand_beside_raw_pixels():
    ways = [
        PictureRow(code="jpeg:75", bytes=6300.4, raw_bytes=150528, drop=0.25, encode_ms=1.5),
        PictureRow(code="came", bytes=15800.0, raw_bytes=150528, drop=0.0, encode_ms=0.0),
    ]
    text = str(endings_section(Summary(pictures=ways)))
    for shown in ("raw pixels", "150,528", "a JPEG of quality 75", "6,300", "+0.25", "the file as it came", "15,800"):
        assert shown in text
    assert not endings_section(Summary())


def test_a_page_says_what_each_compression_saves_by_itself(tmp_path):
    text = written(tmp_path, full_summary())[1].text
    row = text[text.index("inner@0.5") :]
    assert "What each compression saves" in text
    assert row.index("0.625 ms") < row.index("+0.25") < row.index("yes")
    assert "What each compression saves" not in written(tmp_path, bare_summary())[1].text
