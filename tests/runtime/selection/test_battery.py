import math

import numpy as np
import pytest
from decision_tables import small_decisions, small_tree

from modeltree.errors import ConfigError, DataError
from modeltree.offloading.decisions import tree_decisions
from runtime.selection.battery import Battery, Exhausted, stay_ms, worst_mj

WORST = np.array([9.0, 4.0, 25.0])


def test_the_allowance_keeps_what_every_later_inference_needs():
    battery = Battery(budget_mj=30.0, inferences=4, worst_mj=WORST)
    assert battery.allowance_mj() == pytest.approx(30 - 3 * 4)
    assert battery.allowed().tolist() == [True, True, False]
    battery.spend(9.0)
    assert battery.allowance_mj() == pytest.approx(30 - 9 - 2 * 4)
    battery.spend(9.0)
    assert battery.allowed().tolist() == [False, True, False]
    battery.spend(1.5)  # left early
    assert battery.allowed().tolist() == [True, True, False]
    assert (battery.spent_mj, battery.inferences_left) == (19.5, 1)


@pytest.mark.parametrize("seed", range(30))
def test_no_sequence_of_choices_spends_more_than_the_budget(seed):
    rng = np.random.default_rng(seed)
    worst = rng.uniform(0.1, 50.0, int(rng.integers(1, 9)))
    count = int(rng.integers(1, 300))
    budget = float(count * worst.min() * rng.uniform(1.001, 4.0))
    battery = Battery(budget_mj=budget, inferences=count, worst_mj=worst)
    spent = []
    for _ in range(count):
        action = rng.choice(np.flatnonzero(battery.allowed()))
        took = worst[action] * (1.0 if rng.random() < 0.5 else rng.random())
        battery.spend(float(took))
        spent.append(took)
    assert math.fsum(spent) <= budget
    with pytest.raises(Exhausted, match="have all been made"):
        battery.allowed()
    with pytest.raises(Exhausted, match="have all been made"):
        battery.spend(0.0)


def test_what_took_more_than_its_worst_case_is_counted_and_the_rest_refused_in_time():
    battery = Battery(budget_mj=30.0, inferences=3, worst_mj=WORST)
    battery.spend(24.0)
    with pytest.raises(Exhausted, match=r"6 mJ left for 2 inferences, and the cheapest action takes up to 4 mJ"):
        battery.allowance_mj()


def test_the_worst_case_of_sending_is_to_wait_in_vain_and_then_go_on_alone():
    decisions = small_decisions()
    table, energy = decisions.table, decisions.energy
    rest_ms = np.linspace(1.0, 2.0, len(table))
    worst = worst_mj(decisions, rest_ms, timeout_ms=100.0)
    sends = table.sends
    np.testing.assert_allclose(worst[~sends], energy.compute_w * table.device_ms[~sends])
    np.testing.assert_allclose(worst[sends], energy.compute_w * (table.device_ms + rest_ms)[sends] + 100.0)
    usual = decisions.energy_mj(80.0)
    assert (worst >= usual).all()


def test_a_tree_says_how_long_the_rest_takes_on_the_device():
    decisions = tree_decisions(small_tree())
    assert stay_ms(small_tree(), decisions.table).tolist() == [40.0, 0.0, 40.0, 0.0, 0.0, 40.0]
    with pytest.raises(DataError, match="does not say how long the rest behind node 1 takes"):
        stay_ms(small_tree(rest_ms=0.0), decisions.table)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"budget_mj": 11.0}, "too small for 3 inferences: the cheapest action takes up to 4 mJ, all together 12 mJ"),
        ({"budget_mj": math.inf}, "budget_mj is inf"),
        ({"budget_mj": -1.0}, "budget_mj is -1"),
        ({"inferences": 0}, "for 0 inferences"),
        ({"worst_mj": np.array([])}, "one finite number an action"),
        ({"worst_mj": np.array([1.0, math.inf])}, "one finite number an action"),
    ],
)
def test_a_battery_that_cannot_be_is_refused(changed, message):
    with pytest.raises(ConfigError, match=message):
        Battery(**{"budget_mj": 30.0, "inferences": 3, "worst_mj": WORST} | changed)


@pytest.mark.parametrize("mj", [-1.0, math.nan, math.inf])
def test_energy_that_cannot_be_is_not_counted(mj):
    battery = Battery(budget_mj=30.0, inferences=3, worst_mj=WORST)
    with pytest.raises(ConfigError, match="an inference took"):
        battery.spend(mj)
    assert battery.inferences_left == 3


def test_a_time_out_without_end_is_refused():
    decisions = small_decisions()
    with pytest.raises(ConfigError, match="timeout_ms is inf"):
        worst_mj(decisions, np.zeros(len(decisions)), timeout_ms=math.inf)
