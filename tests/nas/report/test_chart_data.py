"""What charts are given: which field lies on which axis, in which unit, with which values of the summary or the run."""

import json
import math

import msgspec
import pytest
from test_report import full_summary, small_tree
from test_report_field import field, leaf, method, replaced_leaf, shot, tree_run

from nas.field.along import link_points, path_stretches, type_stretches
from nas.field.tally import drifts, tallies, tally
from nas.report.field import charts as field_charts
from nas.report.pieces import charts
from nas.report.pieces.charts import MAX_POINTS, scale, specification, thin, wide
from nas.report.pieces.colours import colours, key
from nas.report.policies import lines_chart
from nas.report.search import charts as search_charts
from nas.results.summary import Branch, Predictor, Series, read_summary


def layers(spec):
    """Every view that has a mark, with the data it is drawn from."""
    views = []

    def visit(part, data):
        data = part.get("data", data)
        for inner in (*part.get("vconcat", []), *part.get("layer", [])):
            visit(inner, data)
        if "mark" in part:
            kind = part["mark"] if isinstance(part["mark"], str) else part["mark"]["type"]
            views.append((kind, part.get("encoding", {}), spec["datasets"].get((data or {}).get("name"), [])))

    visit(spec, None)
    return views


def drawn(picture, kind, which=0):
    """(encoding, rows) of the which-th view of a kind of mark."""
    return [(encoding, rows) for mark, encoding, rows in layers(specification(picture, ["tree"])) if mark == kind][
        which
    ]


def axes(encoding):
    """(field, title) of both axes."""
    return tuple((encoding[axis]["field"], encoding[axis].get("title")) for axis in ("x", "y"))


def test_the_search_chart_holds_the_best_rewards_over_evaluations():
    picture = search_charts.search_chart({"tree": [(10, 300.0), (100, 350.0)], "random": [(20, 290.0)]}, 357.1)
    encoding, rows = drawn(picture, "line")
    assert axes(encoding) == (("evaluations", "evaluations (log scale)"), ("reward", "best reward so far, predicted"))
    told = {(row["name"], row["evaluations"], row["reward"]) for row in rows}
    assert told == {("tree", 10, 300.0), ("tree", 100, 350.0), ("random", 20, 290.0), ("random", 100, 290.0)}
    optimum, bound = drawn(picture, "rule")
    assert (optimum["y"]["field"], bound) == ("reward", [{"reward": 357.1}])


def test_a_long_search_begins_where_its_lines_are_no_longer_steep():
    encoding, rows = drawn(search_charts.search_chart({"tree": [(1, 10.0), (2, 200.0), (1000, 300.0)]}, None), "line")
    assert [(row["evaluations"], row["reward"]) for row in rows] == [(10, 200), (1000, 300), (1000, 300)]
    assert encoding["x"]["scale"]["type"] == "log"
    assert encoding["x"]["title"] == "evaluations (log scale)"


def test_latency_lies_across_and_accuracy_upwards():
    summary = read_summary(full_summary())
    picture = search_charts.tradeoff_chart(
        [Branch(leaf=3, latency_ms=41.0, accuracy=90.5, chance=0.25)], summary.methods
    )
    encoding, rows = drawn(picture, "point")
    assert axes(encoding)[1] == ("accuracy", "accuracy in %")
    assert axes(encoding)[0] == ("latency_ms", "latency in ms, predicted")
    told = {row["name"]: (row["latency_ms"], row["accuracy"]) for row in rows}
    assert told == {"device_only": (100.0, 92.0), "cloud_raw": (190.0, 92.0), "cloud_jpeg": (60.0, 91.0),
                    "surgery": (80.0, 92.0), "branch": (50.0, 90.0), "tree": (40.0, 90.0)}  # fmt: skip
    bubble, leaves = drawn(picture, "circle")
    assert axes(bubble) == axes(encoding)
    assert leaves == [{"name": "tree", "leaf": 3, "latency_ms": 41.0, "accuracy": 90.5, "chance": 0.25}]


def test_without_branches_there_is_no_layer_without_data():
    picture = search_charts.tradeoff_chart([], read_summary(full_summary()).methods)
    assert [(kind, len(rows)) for kind, _, rows in layers(specification(picture, ["tree"]))] == [("point", 6)]


def test_what_was_predicted_lies_across_and_what_was_measured_upwards():
    encoding, rows = drawn(search_charts.predictor_chart(Predictor(points=[(90.0, 89.5), (80.0, math.nan)])), "circle")
    assert axes(encoding) == (("predicted", "predicted accuracy in %"), ("measured", "measured accuracy in %"))
    assert rows == [{"predicted": 90.0, "measured": 89.5}]
    assert encoding["x"]["scale"]["domain"] == encoding["y"]["scale"]["domain"] == [89.0, 90.5]


def test_the_trace_holds_bandwidth_and_every_latency_at_its_moment():
    series = Series(time_s=[0.0, 1.0, 2.0], bandwidth_mbps=[1.0, 8.0, 2.0],
                    latency_ms={"tree": [30.0, math.nan, 40.0], "a b": [80.0, 81.0, 82.0]})  # fmt: skip
    picture = search_charts.trace_chart(series, [4.0])
    link, rows = drawn(picture, "area")
    assert axes(link) == (("time_s", None), ("mbps", "bandwidth in Mbit/s"))
    assert [(row["time_s"], row["mbps"]) for row in rows] == [(0.0, 1.0), (1.0, 8.0), (2.0, 2.0)]
    assert drawn(picture, "rule")[1] == [{"mbps": 4.0}]
    lines, moments = drawn(picture, "line")
    assert axes(lines) == (("time_s", "time in s"), ("value", "latency in ms, simulated"))
    other = key("a b")
    assert other.isidentifier()
    assert moments == [
        {"time_s": 0.0, "tree": 30.0, other: 80.0}, {"time_s": 1.0, "tree": None, other: 81.0},
        {"time_s": 2.0, "tree": 40.0, other: 82.0},
    ]  # fmt: skip
    pointer, same = drawn(picture, "rule", 1)
    assert same == moments
    assert [(one["field"], one["title"]) for one in pointer["tooltip"]] == [
        ("time_s", "time in s"), ("tree", "Model tree"), (other, "a b"),
    ]  # fmt: skip
    assert search_charts.with_means(series) == [("tree", "Model tree 35 ms"), ("a b", "a b 81 ms")]


def test_the_stretch_that_is_dragged_across_the_link_is_what_the_panels_below_show():
    series = read_summary(full_summary()).along_trace
    spec = specification(search_charts.trace_chart(series, [4.0]), ["tree", "surgery"])
    (stretch,) = [one for one in spec["params"] if one["name"] == "zoom"]
    assert stretch["select"] | {"mark": None} == {"type": "interval", "encodings": ["x"], "mark": None}
    link, latencies = spec["vconcat"]
    assert link["layer"][0]["encoding"]["x"]["scale"] == {"nice": False, "zero": False}
    for layer in latencies["layer"]:
        assert layer["encoding"]["x"]["scale"]["domain"] == {"param": "zoom"}
    assert {"name": "shown", "value": ["tree", "surgery"]} in spec["params"]
    assert {"filter": "indexof(shown, datum.name) >= 0"} in latencies["layer"][0]["transform"]
    assert link["width"] == latencies["width"]  # a page sets one width for both


def test_bars_say_what_they_are_long_for():
    encoding, rows = drawn(
        search_charts.bars([("before", 85.0, "85.00", "var(--x)"), ("none", math.nan, "", "")], "%"), "bar"
    )
    assert (encoding["x"]["field"], encoding["y"]["field"]) == ("value", "name")
    assert rows == [{"name": "before", "value": 85.0, "shown": "85.00 %", "colour": "var(--x)"}]


def test_every_inference_of_a_field_run_lies_at_its_start_and_its_latency():
    run = field(deadline_ms=50.0)
    found = tallies(run)
    encoding, rows = drawn(field_charts.trace_chart(run, found, found[-1]), "line")
    assert {(row["name"], row["ms"]) for row in rows} == {("device_only", 100.0), ("tree", 40.0)}
    assert [row["time_s"] for row in rows if row["name"] == "tree"] == list(range(10))
    assert {(row["leaf"], row["answered"]) for row in rows if row["name"] == "tree"} == {(2, "device"), (1, "cloud")}
    assert axes(encoding) == (("time_s", "time in s"), ("ms", "latency in ms, measured"))


def test_the_strip_outlines_what_went_on_here():
    def stretches(run):
        rows = path_stretches(tally(run, ()), run.shots, [float(i + 1) for i in range(10)])
        return [(row["leaf"], row["time_s"], row["end_s"]) for row in rows if row["missed"]]

    assert stretches(tree_run()) == []
    assert stretches(tree_run(alone=(1,))) == [(1, 1, 2.0)]
    assert stretches(tree_run(alone=(1, 5))) == [(1, 1, 2.0), (1, 5, 6.0)]


def test_stretches_of_one_bandwidth_type_are_one_box_a_fork():
    shots = [shot(i, nodes=(0, 2), device_ms=1.0, types=kinds) for i, kinds in enumerate([(0, 1), (0, 0), (1,)])]
    rows = type_stretches(shots, [1.0, 2.0, 3.0])
    assert [(row["fork"], row["type"], row["time_s"], row["end_s"]) for row in rows] == [
        (1, 0, 0, 2.0), (1, 1, 2, 3.0), (2, 1, 0, 1.0), (2, 0, 1, 2.0),
    ]  # fmt: skip
    assert field_charts.type_colour(0, 2) == "hsl(24 72% var(--fork-line))"  # slowest: orange, as in the drawing
    assert field_charts.type_colour(1, 2) == "hsl(214 72% var(--fork-line))"


def test_parts_stack_up_to_the_mean():
    rows = field_charts.part_rows(tallies(field()))
    tree = {row["part"]: row["ms"] for row in rows if row["method"] == "Model tree"}
    assert tree == pytest.approx({"device": 22.5, "transfer": 15.0, "cloud": 2.5})  # five here at 40, five by the cloud
    assert {row["mean_ms"] for row in rows if row["method"] == "Model tree"} == {40.0}
    encoding, _ = drawn(field_charts.parts_chart(tallies(field())), "bar")
    assert axes(encoding) == (("ms", "mean latency in ms, measured"), ("method", None))


def test_the_distribution_ends_at_all_inferences():
    shots = [shot(i, nodes=(0,), device_ms=ms) for i, ms in enumerate((30.0, 10.0, 20.0, 40.0))]
    found = tallies(field(method("tree", shots, [leaf(0, device_ms=25.0)])))
    rows = field_charts.distribution_rows(found)
    assert [(row["ms"], row["percent"]) for row in rows] == [(10.0, 25.0), (20.0, 50.0), (30.0, 75.0), (40.0, 100.0)]
    encoding, _ = drawn(field_charts.distribution_chart(found), "line")
    assert axes(encoding) == (("ms", "latency in ms, measured"), ("percent", "% of inferences that took no longer"))


def test_drift_lies_measured_over_predicted_and_rings_what_is_off():
    run = field(replaced_leaf(tree_run(), 1, transfer_ms=50.0))
    encoding, rows = drawn(field_charts.drift_chart(drifts(tallies(run))), "circle")
    assert axes(encoding) == (
        ("predicted_ms", "predicted in ms (log scale)"),
        ("measured_ms", "measured in ms (log scale)"),
    )
    told = {(row["part"], row["predicted_ms"], row["measured_ms"], row["alarming"]) for row in rows}
    assert told == {("device", 5.0, 5.0, False), ("transfer", 30.0, 50.0, True), ("cloud", 5.0, 5.0, False),
                    ("device", 40.0, 40.0, False)}  # fmt: skip


def test_the_link_of_a_run_goes_on_as_the_shots_say_where_its_trace_ends():
    run = field(trace_time_s=(0.0, 4.0), trace_mbps=(8.0, 1.0))
    shots = [msgspec.structs.replace(one, link_mbps=5.0) for one in tree_run().shots]
    points = link_points(run, shots, 10.0)
    assert points[:3] == [(0.0, 8.0), (4.0, 1.0), (5, 5.0)]
    assert points[-1] == (10.0, 5.0)


def test_policies_lie_over_what_they_are_told_of():
    import numpy as np

    picture = lines_chart(np.array([1.0, 2.0]), {"exact": np.array([5.0, np.nan]), "sac": np.array([7.0, 8.0])},
                          x_title="bandwidth in Mbit/s", y_title="latency in ms")  # fmt: skip
    encoding, rows = drawn(picture, "line")
    assert axes(encoding) == (("x", "bandwidth in Mbit/s"), ("y", "latency in ms"))
    assert [(row["name"], row["x"], row["y"]) for row in rows] == [("exact", 1, 5), ("sac", 1, 7), ("sac", 2, 8)]
    assert lines_chart(np.array([1.0]), {"exact": np.array([5.0])}, x_title="", y_title="") is None


def test_a_scale_is_logarithmic_only_where_values_span_much():
    assert not wide([])
    assert wide([1.0, 100.0])
    assert not wide([0.0, 100.0])
    assert scale([1.0, 100.0, math.nan]).to_dict()["type"] == "log"
    assert "type" not in scale([1.0, 5.0]).to_dict()
    assert scale([1.0, 5.0], zero=True).to_dict()["zero"] is True


def test_many_points_are_thinned_and_the_last_one_stays():
    points = list(range(10 * MAX_POINTS + 7))
    kept = thin(points)
    assert len(kept) <= MAX_POINTS + 1
    assert (kept[0], kept[-1]) == (0, points[-1])
    assert thin([1, 2, 3]) == [1, 2, 3]


def test_what_is_no_number_is_nothing_in_the_data_and_any_name_is_a_plain_field():
    data = json.loads(charts.rows([{"a": math.nan, "b": math.inf, "c": 1 / 3}]).to_dict()["values"])
    assert data == [{"a": None, "b": None, "c": 0.333333}]
    assert key("tree") == "tree"
    assert key("a.b['c']").isidentifier()
    assert key("a.b") != key("a_b")


def test_names_have_colours_of_their_own():
    drawn_with = colours(["tree", "mine", "yours", "surgery"])
    assert drawn_with["tree"] == "var(--tree)"
    assert len(set(drawn_with.values())) == 4


def test_a_tree_is_no_chart():
    """Its drawing is ours: all of it is in the page, for those without scripts too."""
    from nas.report.search.page import render_page

    assert '<svg class="tree"' in render_page(read_summary(full_summary()), small_tree())
