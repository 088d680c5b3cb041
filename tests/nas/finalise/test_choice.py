"""What is handed over and what is trained for it, with rewards by hand."""

import pytest

from nas.finalise.choice import choose
from nas.finalise.contenders import contenders, lost_accuracy
from nas.treesearch.evaluator import PathOutcome
from nas.treesearch.problem import Outcome, Plan

SLOW, FAST, SPLIT = ((Plan(0, (n,)),) for n in range(3))


def worth(**rewards):
    """Method -> outcome, the simplest first: a reward, or (reward, energy in mJ)."""
    pairs = {name: value if isinstance(value, tuple) else (value, 0.0) for name, value in rewards.items()}
    return {name: Outcome(reward, 1.0, 90.0, energy_mj) for name, (reward, energy_mj) in pairs.items()}


@pytest.mark.parametrize(
    ("judged", "limit_mj", "chosen"),
    [
        (worth(device_only=350.0, branch=360.0, tree=370.0), None, "tree"),
        (worth(device_only=350.0, branch=369.5, tree=370.0), None, "branch"),  # half a point is a tie
        (worth(device_only=350.0, branch=369.4, tree=370.0), None, "tree"),
        (worth(device_only=371.0, branch=360.0, tree=370.0), None, "device_only"),
        (worth(device_only=(350.0, 2.0), branch=(360.0, 5.0), tree=(370.0, 9.0)), 5.0, "branch"),
        (worth(device_only=(350.0, 6.0), branch=(360.0, 8.0), tree=(370.0, 9.0)), 5.0, "device_only"),  # none keeps it
        (worth(device_only=(350.0, 9.0), branch=(360.0, 8.0), tree=(370.0, 8.0)), 5.0, "tree"),
    ],
)
def test_the_simplest_of_the_best_is_handed_over(judged, limit_mj, chosen):
    assert choose(judged, limit_mj) == chosen


@pytest.mark.parametrize(
    ("valued", "trained"),
    [
        ({"tree": 370.0, "branch": 365.1}, [FAST, SPLIT, SLOW]),
        ({"tree": 370.0, "branch": 365.0}, [FAST, SPLIT]),  # five points behind is hopeless
        ({"tree": 360.0, "branch": 370.0}, [SLOW, SPLIT]),
        ({"branch": 300.0}, [SLOW, SPLIT]),
    ],
)
def test_what_is_hopelessly_behind_is_not_trained(valued, trained):
    own = {"device_only": {(): 1.0}, "branch": {SLOW: 0.5, SPLIT: 0.5}, "tree": {FAST: 0.5, SPLIT: 0.5}}
    own = {name: paths for name, paths in own.items() if name in valued or name == "device_only"}
    assert contenders(own, valued | {"device_only": 999.0}) == trained


@pytest.mark.parametrize(("slow", "fast", "lost"), [(91.0, 89.5, False), (89.9, 90.0, True), (91.0, 86.0, True)])
def test_training_is_taken_back_where_accuracy_fell_in_the_mean_over_chances(slow, fast, lost):
    chances = {SLOW: 0.25, FAST: 0.25, SPLIT: 0.5}
    before = dict.fromkeys(chances, PathOutcome(90.0, 1.0))
    after = {SLOW: PathOutcome(slow, 1.0), FAST: PathOutcome(fast, 1.0), SPLIT: PathOutcome(0.0, 1.0)}
    assert lost_accuracy(chances, [SLOW, FAST], before, after) is lost  # what was not trained does not count
