"""The page of a field run: whole, safe, honest, and alarmed exactly when predictions do not hold."""

import json
import math
import re

import msgspec
import numpy as np
import pytest
from html_pages import Page, alone, charts_of, without_scripts

from nas.field.record import FieldRun, Leaf, MethodRun, Shot, decode_field, encode_field
from nas.field.tally import Drift, drifts, endings, lead_ms, tallies, tally
from nas.field.verdict import REMEDIES, alarms, best_of, field_verdict, subject_of
from nas.report.field.charts import leaf_colours
from nas.report.field.page import render_field

EVIL = "</text></svg><script>alert(1)</script><img src=x onerror=\"alert('2')\">&amp;'"


def shot(start_s, *, nodes, device_ms, transfer_ms=0.0, cloud_ms=0.0, wait_ms=0.0, **rest):
    fields = {
        "link_mbps": 8.0, "types": (0,) * len(nodes), "mbps": (None,) + (7.5,) * (len(nodes) - 1),
        "answered_by": "cloud" if transfer_ms else "device", "why": "", "predicted_class": 1, "label": 1,
        "encode_ms": 0.0, "total_ms": device_ms + transfer_ms + cloud_ms + wait_ms, "error": 2e-6,
    } | rest  # fmt: skip
    return Shot(start_s=start_s, nodes=nodes, device_ms=device_ms, transfer_ms=transfer_ms, cloud_ms=cloud_ms,
                wait_ms=wait_ms, **fields)  # fmt: skip


def leaf(number, *, device_ms, transfer_ms=0.0, cloud_ms=0.0, measured=(None, None, None), shots=1, accuracy=90.0):
    return Leaf(
        leaf=number, text=f"way {number}", accuracy=accuracy, shots=shots, device_predicted_ms=device_ms,
        transfer_predicted_ms=transfer_ms, cloud_predicted_ms=cloud_ms, device_ms=measured[0], transfer_ms=measured[1],
        cloud_ms=measured[2],
    )  # fmt: skip


def method(name, shots, leaves):
    total_ms = tuple(one.total_ms for one in shots)
    return MethodRun(
        name=name, bundle=f"bundles/{name}", shots=tuple(shots), leaves=tuple(leaves),
        emulated_ms=tuple(ms - 1 for ms in total_ms), replayed_ms=total_ms,
    )  # fmt: skip


def tree_run(*, alone=()):
    """Ten inferences, 40 ms each: even ones here (leaf 2), odd ones by the cloud (leaf 1) but for those in `alone`."""
    shots = []
    for i in range(10):
        if i % 2 == 0:
            shots.append(shot(i, nodes=(0, 2), device_ms=40.0))
        elif i in alone:
            shots.append(shot(i, nodes=(1,), device_ms=40.0))
        else:
            shots.append(shot(i, nodes=(1,), device_ms=5.0, transfer_ms=30.0, cloud_ms=5.0))
    ways = [
        leaf(1, device_ms=5.0, transfer_ms=30.0, cloud_ms=5.0, measured=(5.0, 30.0, 5.0), shots=5),
        leaf(2, device_ms=40.0, measured=(40.0, None, None), shots=5),
    ]
    return method("tree", shots, ways)


def device_run(ms=100.0):
    ways = [leaf(0, device_ms=ms, measured=(ms, None, None), shots=10, accuracy=92.0)]
    return method("device_only", [shot(i, nodes=(0,), device_ms=ms) for i in range(10)], ways)


def field(*methods, **rest):
    fields = {
        "trace": "4g", "trace_origin": "synthetic", "rtt_ms": 25.0, "edges_mbps": (4.0,),
        "representative_mbps": (1.0, 8.0), "link": "relay", "slowdown": "blocks take as long as on phone",
        "device": "phone", "cloud": "cloud_gpu", "every_ms": 1000.0, "deadline_ms": None, "base": "vgg11",
        "machine": "laptop", "commit": "abc123", "date": "2026-01-01", "trace_time_s": (0.0, 4.0, 20.0),
        "trace_mbps": (8.0, 1.0, 9.0), "oracle_ms": (32.0,) * 10,
    } | rest  # fmt: skip
    return FieldRun(methods=methods or (device_run(), tree_run()), **fields)


def page(run):
    html = render_field(run)
    for spec in charts_of(html):
        assert all(spec["datasets"].values())  # a chart without data makes a browser warn
    assert not re.search(r"\b(nan|inf)\b", without_scripts(html))
    return Page(html)


def replaced_leaf(run, number, **changes):
    leaves = tuple(
        msgspec.structs.replace(one, **changes) if one.leaf == number else one for one in run.leaves
    )  # fmt: skip
    return msgspec.structs.replace(run, leaves=leaves)


def test_the_page_of_a_record_that_was_read_back_needs_nothing_but_itself():
    alone(render_field(decode_field(encode_field(field()), "field.json")))


def test_every_section_and_fact_is_there():
    text = page(field()).text
    for title in ("In the field: vgg11 on phone", "Methods, in turns over the trace", "Along the trace", "Distribution",
                  "Where the time went", "Do the predictions hold?", "What is measured, emulated and computed",
                  "Configuration and provenance"):  # fmt: skip
        assert title in text
    for fact in ("blocks take as long as on phone", "relay", "laptop", "abc123", "2026-01-01", "25 ms", "way 2"):
        assert fact in text


def test_a_turn_comes_to_numbers_that_one_can_check_by_hand():
    found = tally(tree_run(alone=(1, 3)), (32.0,) * 10)
    assert (found.mean_ms, found.median_ms, found.p95_ms) == (40.0, 40.0, 40.0)
    assert found.handed_over == pytest.approx(30.0)
    assert found.alone == 2
    assert found.over_oracle == pytest.approx(25.0)
    assert found.parts_ms == pytest.approx((29.5, 0.0, 9.0, 1.5, 0.0))
    assert found.reward == pytest.approx(100 * 40 / 50 + 300 * 460 / 500)
    assert (found.checked, found.error, found.right) == (10, 2e-6, 100.0)


@pytest.mark.parametrize(
    ("predicted", "measured", "alarming"),
    [(10.0, 12.0, False), (10.0, 12.1, True), (10.0, 7.9, True), (10.0, 8.1, False), (2.0, 3.0, False),
     (2.0, 3.1, True), (0.0, 0.9, False), (0.0, 1.1, True), (1000.0, 1200.0, False), (0.0, 0.0, False)],
)  # fmt: skip
def test_a_part_is_alarming_when_off_by_more_than_a_fifth_and_a_millisecond(predicted, measured, alarming):
    one = Drift(title="x", leaf=leaf(1, device_ms=1.0), part="device", predicted_ms=predicted, measured_ms=measured)
    assert one.alarming is alarming


@pytest.mark.parametrize("part", ["device", "transfer", "cloud"])
def test_the_page_raises_an_alarm_and_says_the_remedy_for_the_part_that_drifted(part):
    run = replaced_leaf(tree_run(), 1, **{f"{part}_ms": 50.0})
    text = page(field(device_run(), run)).text
    assert "ALARM" in text
    for name, remedy in REMEDIES.items():
        assert (remedy in text) == (name == part)
    assert "50 ms measured" in text


def test_without_drift_there_is_no_alarm():
    text = page(field()).text
    assert "ALARM" not in text
    assert "in line" in text
    assert "All 5 parts lie within that." in text


def test_a_path_that_was_not_taken_or_not_measured_raises_no_alarm():
    never = replaced_leaf(tree_run(), 1, shots=0, device_ms=500.0)
    nothing = replaced_leaf(tree_run(), 1, device_ms=None, transfer_ms=None, cloud_ms=None)
    for run in (never, nothing):
        assert "ALARM" not in page(field(run)).text
        assert alarms(drifts(tallies(field(run)))) == []


def lead(*methods, **rest):
    run = field(*methods, **rest)
    return field_verdict(run, tallies(run))


def test_the_verdict_when_the_tree_wins():
    said = lead()
    assert (
        said[0] == "The model tree is the best choice on this link: 40 ms on average at 90.0 % accuracy (reward 356.0)."
    )
    assert said[1] == "Against device-only (100 ms) the tree takes 60 % less time at 2.0 points less accuracy."
    assert "would need 32 ms: the tree is 25 % above that" in said[2]
    assert "foretold 39 ms for the tree, and with the times measured here 40 ms; the remaining +0 ms" in said[3]
    assert (
        said[-1]
        == "20 of 20 answers were checked against torch: the largest difference is 0.0002 % of the largest logit."
    )


def test_the_verdict_says_when_splitting_does_not_help():
    assert lead(device_run(30.0), tree_run())[0].startswith("Splitting does not help on this link: keep everything on")
    raw = msgspec.structs.replace(device_run(20.0), name="cloud_raw")
    assert lead(raw, tree_run())[0].startswith("Splitting does not help on this link: send the raw image to the cloud")
    surgery = msgspec.structs.replace(device_run(20.0), name="surgery")
    assert "without compressing it (surgery) is the best choice" in lead(surgery, tree_run())[0]
    same = msgspec.structs.replace(tree_run(), name="branch")
    assert lead(same, tree_run())[0].startswith("The tree only ties with the branch")
    assert "differs by no more than chance" in lead(same, tree_run())[1]


def test_a_machine_that_cannot_play_its_device_is_said():
    played = "every block takes at least what the profile of phone predicts, the rest of it slept"
    slow = method("tree", [shot(i, nodes=(0,), device_ms=47.0) for i in range(4)], [
        leaf(0, device_ms=9.4, measured=(47.0, None, None), shots=4)
    ])  # fmt: skip
    (said,) = [one for one in lead(slow, slowdown=played) if "too busy" in one]
    assert "to play phone: its blocks took 5 times what the profile predicts" in said
    assert not any("too busy" in one for one in lead(slow, slowdown="every block takes 5 times what it takes here"))
    assert not any("too busy" in one for one in lead(slowdown=played))  # what was to be played was met


def test_a_tree_that_never_handed_over_is_said():
    here = method("tree", [shot(i, nodes=(0, 2), device_ms=40.0) for i in range(10)], tree_run().leaves)
    assert "it never handed over" in lead(device_run(), here)[0]


def test_what_failed_is_counted_by_method():
    said = " ".join(lead(device_run(), tree_run(alone=(1, 3))))
    assert "2 of 20 inferences went on here though the path hands over (Model tree 2)" in said
    assert "None of 20 missed the deadline of 50 ms" in " ".join(lead(deadline_ms=50.0))


def test_a_wrong_answer_is_not_called_rounding():
    for error, says in ((0.5, "50 % of the largest logit, more than rounding"), (math.nan, "not a number")):
        run = tree_run()
        shots = (msgspec.structs.replace(run.shots[0], error=error), *run.shots[1:])
        assert says in lead(msgspec.structs.replace(run, shots=shots))[-1]
    shots = tuple(msgspec.structs.replace(one, error=None) for one in tree_run().shots)
    assert lead(msgspec.structs.replace(tree_run(), shots=shots))[-1] == "No answer was checked against torch."


def test_a_lead_pairs_inferences_and_few_of_them_are_never_sure():
    fast, slow = (tally(device_run(ms), ()) for ms in (90.0, 100.0))
    assert lead_ms(fast, slow) == (10.0, 0.0)
    once = [tally(msgspec.structs.replace(r, shots=r.shots[:1]), ()) for r in (device_run(90.0), device_run(100.0))]
    assert lead_ms(*once) == (10.0, math.inf)
    run = field(*(msgspec.structs.replace(r, shots=r.shots[:1]) for r in (device_run(), tree_run())))
    assert "do not tell the tree from device-only for sure: run longer" in " ".join(field_verdict(run, tallies(run)))


ODD = {
    "no method": lambda: msgspec.structs.replace(field(), methods=()),
    "no shots": lambda: field(method("tree", [], tree_run().leaves)),
    "no leaves": lambda: field(method("tree", tree_run().shots, [])),
    "one shot": lambda: field(method("tree", tree_run().shots[:1], tree_run().leaves), oracle_ms=(3.0,)),
    "no trace": lambda: field(trace_time_s=(), trace_mbps=(), edges_mbps=(), representative_mbps=()),
    "one type": lambda: field(edges_mbps=(), representative_mbps=(3.0,)),
    "no oracle": lambda: field(oracle_ms=()),
    "no rhythm": lambda: field(every_ms=0.0),
    "no path": lambda: field(method("tree", [shot(0, nodes=(), device_ms=1.0)], [])),
    "estimates unknown": lambda: field(method("tree", [shot(0, nodes=(0, 2), device_ms=1.0, mbps=(None, None))], [])),
    "all at once": lambda: field(method("tree", [shot(0, nodes=(0,), device_ms=1.0)] * 3, [])),
    "zero time": lambda: field(method("tree", [shot(i, nodes=(0,), device_ms=0.0) for i in range(3)], [])),
    "unknown method": lambda: field(msgspec.structs.replace(tree_run(), name="my own")),
    "twice the same": lambda: field(tree_run(), tree_run()),
    "past the trace": lambda: field(trace_time_s=(0.0, 1.0), trace_mbps=(1.0, 2.0)),
    "trace far longer": lambda: field(trace_time_s=tuple(map(float, range(5000))), trace_mbps=(1.0,) * 5000),
}  # fmt: skip


@pytest.mark.parametrize("what", ODD)
def test_any_run_gives_a_page(what):
    text = page(ODD[what]()).text
    assert "In the field: vgg11 on phone" in text
    assert ("so there is no verdict" in text) == (what in ("no method", "no shots"))


@pytest.mark.parametrize("value", [math.nan, math.inf, -5.0, 1e300])
def test_values_that_cannot_be_true_are_left_out_and_counted(value):
    run = tree_run()
    bad = dict.fromkeys(("device_ms", "total_ms", "wait_ms", "link_mbps"), value) | {"mbps": (value, value)}
    shots = (msgspec.structs.replace(run.shots[0], **bad), *run.shots[1:])
    odd = replaced_leaf(msgspec.structs.replace(run, shots=shots), 1, device_ms=value, transfer_predicted_ms=value)
    found = field(device_run(), odd, oracle_ms=(value,) * 10, trace_mbps=(value, 1.0, 2.0), edges_mbps=(value,),
                  deadline_ms=value, rtt_ms=value, every_ms=value)  # fmt: skip
    html = render_field(found)
    assert len(html) < 1_200_000
    assert "1 are left out, as their times cannot be true" in Page(html).text
    starts = (msgspec.structs.replace(run.shots[0], start_s=value), *run.shots[1:])
    page(field(msgspec.structs.replace(run, shots=starts)))


def test_shares_of_exits_and_bits_are_told_where_the_tree_has_such_forks():
    """Ten inferences: five through leaf 2, exit 1; five to leaf 1, in 4 bits, also the one that did not cross."""
    run = replaced_leaf(replaced_leaf(tree_run(alone=(3,)), 2, exit=1), 1, bits=4)
    assert endings(run) == {"exit 1": 50.0, "4 bits": 50.0}
    assert endings(replaced_leaf(run, 2, exit=None)) == {"4 bits": 50.0, "elsewhere": 50.0}
    assert endings(tree_run()) == {}
    text = page(field(device_run(), run, policy="exact")).text
    assert "Exits and bits" in text
    assert "driven by exact" in text
    plain = page(field()).text
    assert "Exits and bits" not in plain
    assert "driven by" not in plain


def test_a_record_from_before_policies_and_exits_is_read():
    record = field(device_run(), tree_run())
    plain = json.loads(encode_field(record))
    del plain["policy"]
    for run in plain["methods"]:
        for way in run["leaves"]:
            del way["exit"], way["bits"]
    assert decode_field(json.dumps(plain).encode(), "old.json") == record


def test_hostile_names_stay_text():
    run = msgspec.structs.replace(replaced_leaf(tree_run(), 1, text=EVIL), name=EVIL, bundle=EVIL)
    names = dict.fromkeys(("trace", "trace_origin", "link", "slowdown", "device", "cloud", "base", "machine", "commit",
                           "date"), EVIL)  # fmt: skip
    html = render_field(field(device_run(), run, **names))
    assert "<script>alert" not in html
    assert "alert(1)" in alone(html).text


def test_leaves_have_colours_of_their_own():
    shots = [shot(i, nodes=(i,), device_ms=1.0) for i in range(12)]
    ways = [leaf(i, device_ms=1.0, transfer_ms=float(i % 2)) for i in range(12)]
    colours = leaf_colours(tally(method("tree", shots, ways), ()))
    assert sorted(colours) == list(range(12))
    assert len(set(colours.values())) == 12


def test_hundreds_of_inferences_stay_a_page_that_can_be_sent():
    rng = np.random.default_rng(0)
    shots = [shot(i / 10, nodes=(0, int(rng.integers(2, 6))), device_ms=float(rng.exponential(20))) for i in range(900)]
    ways = [leaf(i, device_ms=20.0, measured=(20.0, None, None)) for i in range(2, 6)]
    html = render_field(field(*(method(n, shots, ways) for n in ("device_only", "surgery", "branch", "tree"))))
    alone(html)
    assert len(html) < 1_700_000


def test_the_simplest_of_equals_is_the_best_choice():
    assert best_of(tallies(field(tree_run(), msgspec.structs.replace(tree_run(), name="branch")))).name == "branch"
    assert best_of([]) is None
    assert subject_of(tallies(field(device_run()))).name == "device_only"
