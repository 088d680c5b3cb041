"""The verdict: what a run means, and when not to split."""

import copy

import msgspec
import pytest
from test_report import forked, full_summary, small_tree

from nas.report import verdict


def rewarded(**rewards):
    """The full summary with other rewards (also along the trace); the methods that are not named stay."""
    summary = copy.deepcopy(full_summary())
    for entry in summary["methods"]:
        entry["reward"] = entry["predicted_reward"] = rewards.get(entry["method"], entry["reward"])
        if entry["along_trace"]:
            entry["along_trace"]["reward"] = entry["reward"]
    return summary


def test_the_verdict_when_the_tree_wins():
    assert verdict(full_summary(), small_tree()) == [
        "The model tree is the best choice: 40 ms at 90.0 % accuracy (reward 356.0).",
        "Compared with device-only (100 ms), the tree has 60 % less latency and 2.0 points less accuracy; compared "
        "with surgery (80 ms), 50 % less latency and 2.0 points less accuracy; compared with cloud with JPEG (60 ms), "
        "33 % less latency and 1.0 points less accuracy.",
        "The search came within 0.3 % of the predictor's exact optimum (357.1).",
        "Latencies are predicted from the profiles of pi4 and gpu, not timed on them; accuracies are measured on test "
        "images.",
    ]


@pytest.mark.parametrize(
    ("rewards", "says"),
    [
        ({"device_only": 390.0}, "Splitting does not help here: keep everything on the device, 100 ms"),
        ({"device_only": 355.6}, "Splitting does not help here: keep everything on the device"),
        ({"cloud_jpeg": 390.0}, "Splitting does not help here: send the image to the cloud as a JPEG, 60 ms"),
        ({"cloud_raw": 390.0}, "Splitting does not help here: send the raw image to the cloud, 190 ms"),
        ({"surgery": 390.0}, "Cutting the network without compressing it (surgery) is the best choice: 80 ms"),
        ({"branch": 390.0}, "The branch, chosen once at the start, is the best choice: 50 ms"),
        ({"branch": 356.1}, "The tree only ties with the branch, as changing its mind under way gains nothing"),
    ],
)
def test_the_verdict_names_the_simplest_best_choice(rewards, says):
    sentences = verdict(rewarded(**rewards), small_tree())
    assert sentences[0].startswith(says)
    assert 2 <= len(sentences) <= 5


def test_a_tree_that_ties_with_the_branch_but_beats_every_single_path_forks_for_something():
    sentences = verdict(forked(rewarded(branch=356.1)), small_tree())
    assert sentences[0].startswith(
        "Forking by the state of the link pays: 50 ms at 90.0 % accuracy (reward 356.1), 5.0 "
    )
    without = "compared with the best path without forks (55 ms: 2 blocks here), 27 % less latency and 0.3 points more"
    assert f"{without} accuracy, both as predicted" in sentences[1]


@pytest.mark.parametrize("why", [{"leaves": (0, 0)}, {"single": 354.7}])
def test_forking_pays_only_where_states_part_and_no_single_path_ties(why):
    assert "only ties with the branch" in verdict(forked(rewarded(branch=356.1), **why), small_tree())[0]


def test_a_tie_on_a_steady_link_says_that_the_link_hardly_varies():
    summary = rewarded(branch=355.8)
    summary["scenario"]["bandwidth_mbps"] = [7.0, 8.0]
    assert "the link hardly varies (7 to 8 Mbit/s)" in verdict(summary)[0]


def test_a_jpeg_that_beats_the_tree_is_said_even_when_something_else_is_best():
    caveat = verdict(rewarded(device_only=390.0, cloud_jpeg=380.0))[1]
    assert "Sending a JPEG to the cloud also beats the tree (reward 380.0 to 356.0)" in caveat
    assert "the tree reaches 40 ms at 90.0 % (reward 356.0)" in caveat


def test_another_winner_along_the_trace_is_said():
    summary = full_summary()
    summary["methods"][2]["along_trace"]["reward"] = 370.0
    assert verdict(summary)[1] == "Simulated along the trace, cloud with JPEG comes out ahead by 14.0 reward points."


def test_a_tree_that_never_splits_is_said():
    assert "either stays on the device or sends the image" in verdict(full_summary(), small_tree(place=0))[0]
    tree = small_tree()
    stays = msgspec.structs.replace(tree.nodes[1], handover=None)
    tree = msgspec.structs.replace(tree, nodes=(tree.nodes[0], stays, *tree.nodes[2:]))
    assert "all of its gain is compression on the device" in verdict(full_summary(), tree)[0]


def test_the_search_is_judged_against_the_optimum_and_its_rivals():
    found = full_summary()
    found["exact"]["found_percent"] = 100.0
    assert "The search found the predictor's exact optimum (reward 357.1)." in verdict(found)
    beaten = rewarded(random=358.0)
    beaten["exact"] = None
    assert "Random search found a better tree: give the controllers a larger budget." in verdict(beaten)


def test_the_verdict_says_where_the_optimum_is_what_is_handed_over():
    optimum = "that optimum, trained and measured like the rest, is what is handed over as the tree."
    assert any(line.endswith(optimum) for line in verdict(full_summary() | {"chosen": "optimum"}))
    assert not any(line.endswith(optimum) for line in verdict(full_summary()))


def test_slower_and_better_is_said_as_such():
    summary = full_summary()
    summary["methods"][5] |= {"latency_ms": 400.0, "accuracy": 93.5}
    price = next(sentence for sentence in verdict(summary) if sentence.startswith("Compared"))
    assert "device-only (100 ms), the tree has 4 times the latency and 1.5 points more accuracy" in price


def test_predicted_accuracy_is_never_called_measured():
    summary = full_summary()
    summary["methods"][5]["accuracy_origin"] = "predicted"
    assert "measured only where it says so" in verdict(summary)[-1]
    for entry in summary["methods"]:
        entry["accuracy_origin"] = "predicted"
    assert "accuracies are predicted as well" in verdict(summary)[-1]
