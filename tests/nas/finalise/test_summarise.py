"""summary.json: its numbers against those worked out by hand for trees made by hand."""

import json
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
from networks import made_library, made_predictor, scenario, tiny
from trees import RTT_MS, device_only, forked_tree

from modeltree.link.traces import Trace
from nas.compression.predictor import Quality
from nas.config import SearchConfig
from nas.finalise.select import Concluded
from nas.finalise.summarise import Findings, summarise
from nas.quality.measure import TOP1
from nas.treesearch.methods import MethodResult
from nas.treesearch.problem import Outcome
from nas.treesearch.reinforce import Step
from nas.treesearch.search_spaces import build_search_spaces

BASE = 91.0
"""Measured on test images; the predictor of `made_predictor` says 90, so predictions stand one point too low."""
REWARD_A_POINT = 100 / 50


def result(method, reward, accuracy, curve=()):
    return MethodResult(
        method=method, plans=(), valued=reward, reward=reward, latency_ms=40.0, accuracy=accuracy, energy_mj=0.0,
        evaluations=7, seconds=1.5, curve=curve,
    )  # fmt: skip


@pytest.fixture(scope="module")
def summary():
    spaces = build_search_spaces(
        tiny(), library := made_library(), made_predictor(library), scenario(), (0, 2, 5), single_root=False,
        max_loss=100.0,
    )  # fmt: skip
    trees = {"device_only": device_only(), "tree": forked_tree()}
    concluded = Concluded(
        tree=forked_tree(), chosen="branch", trees=trees,
        outcomes={"device_only": Outcome(348.0, 60.0, 92.0), "tree": Outcome(370.0, 30.0, 91.5, 12.0)},
        searched=Outcome(369.0, 31.0, 91.0), base_accuracy=(89.0, BASE), finetuning={"before": 80.0}, seconds={},
    )  # fmt: skip
    findings = Findings(
        results={
            "random": result("random", 300.0, 85.0, (Step(1, 5, 290.0, 280.0, 270.0, 0.5),)),
            "tree": result("tree", 380.0, 88.0, (Step(2, 9, 380.0, 370.0, 360.0, 0.4),)),
            "device_only": result("device_only", 340.0, 90.0),
        },
        exact={"valued": 400.0, "reward": 390.0, "latency_ms": 20.0, "accuracy": 88.5, "seconds": 3.0},
        quality=Quality(points=[(90.0, 89.5)], rank_correlation=0.9, mean_error=0.5),
        seconds={"search": 2.0},
    )
    trace = Trace(
        name="steps", time_s=np.array([0.0, 5.0]), bandwidth_mbps=np.array([8.0, 8.0]), end_s=10.0, rtt_ms=RTT_MS,
        origin="by hand",
    )  # fmt: skip
    prepared = SimpleNamespace(network=tiny(), measure=TOP1)
    made = summarise(SearchConfig(base="tiny"), prepared, trace, spaces, findings, concluded)
    return json.loads(msgspec.json.encode(made))  # as a reader of the file gets it: nothing but plain values


def rows(summary):
    return {row["method"]: row for row in summary["methods"]}


def test_methods_stand_in_the_order_of_the_table(summary):
    assert [row["method"] for row in summary["methods"]] == ["device_only", "tree", "random"]


def test_a_measured_method_is_worth_what_was_measured(summary):
    row = rows(summary)["tree"]
    assert (row["reward"], row["latency_ms"], row["accuracy"], row["energy_mj"]) == (370.0, 30.0, 91.5, 12.0)
    assert (row["accuracy_origin"], row["latency_origin"]) == ("measured", "predicted")
    assert (row["evaluations"], row["seconds"]) == (7, 1.5)
    assert rows(summary)["device_only"]["energy_mj"] is None


def test_predictions_are_lifted_to_the_measured_base_networks_scale(summary):
    assert rows(summary)["tree"]["predicted_accuracy"] == pytest.approx(88.0 + 1.0)
    assert rows(summary)["tree"]["predicted_reward"] == pytest.approx(380.0 + REWARD_A_POINT)
    row = rows(summary)["random"]
    assert (row["accuracy_origin"], row["along_trace"]) == ("predicted", None)
    assert (row["reward"], row["accuracy"]) == pytest.approx((300.0 + REWARD_A_POINT, 86.0))
    assert summary["curves"]["random"] == [[5, 290.0 + REWARD_A_POINT]]
    assert set(summary["curves"]) == {"random", "tree"}


def test_the_exact_optimum_says_how_far_the_search_came(summary):
    assert summary["exact"] == pytest.approx({
        "found_percent": 95.0, "reward": 390.0 + REWARD_A_POINT, "latency_ms": 20.0, "accuracy": 89.5, "seconds": 3.0,
    })  # fmt: skip


def test_along_a_steady_link_every_start_takes_the_same_way(summary):
    """At 8 Mbit/s the forked tree hands 4000 bytes over: 4 ms here, 10 ms round trip, 4 ms of bytes, 0.5 ms there.

    Its reward is 100 (92 - 50) / 50 + 300 (500 - 18.5) / 500, and no other path of the two trees has a better one.
    """
    steady = {"latency_ms": 18.5, "p95_latency_ms": 18.5, "accuracy": 92.0, "reward": 372.9}
    assert rows(summary)["tree"]["along_trace"] == pytest.approx(steady)
    alone = {"latency_ms": 60.0, "p95_latency_ms": 60.0, "accuracy": 92.0, "reward": 348.0}
    assert rows(summary)["device_only"]["along_trace"] == pytest.approx(alone)
    assert summary["oracle_along_trace"] == pytest.approx(steady)
    along = summary["along_trace"]
    assert len(along["time_s"]) == len(along["latency_ms"]["tree"]) == 200
    assert set(along["bandwidth_mbps"]) == {8.0}


def test_leaves_base_and_provenance_are_plain_values(summary):
    assert [(leaf["leaf"], leaf["latency_ms"], leaf["accuracy"]) for leaf in summary["branches"]] == [
        (1, 18.5, 92.0), (2, 50.0, 88.0), (3, 31.5, 90.0),
    ]  # fmt: skip
    assert (summary["chosen"], summary["searched"]["reward"]) == ("branch", 369.0)
    conv = 16 * 16 * 16 * 27 + 16 * 16 * 32 * 16 * 9 + 8 * 8 * 32 * 32 * 9
    assert summary["base"]["macs"] == conv + 512 * 48 + 48 * 5
    assert summary["base"]["accuracy"] == BASE
    assert summary["predictor"] == {"points": [[90.0, 89.5]], "rank_correlation": 0.9, "mean_error": 0.5}
