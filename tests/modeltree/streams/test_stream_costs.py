import numpy as np
import pytest
from stream_systems import small_costs

from modeltree.errors import DataError, FormatError
from modeltree.streams.costs import encode_table, fit_line, load_costs, load_table, save_costs
from modeltree.streams.gain import Gain


def test_an_action_adds_up_the_layers_on_both_sides_of_its_cut():
    table = small_costs().table()
    assert table.exit.tolist() == [0, 1, 1, 1, 2, 2, 2]
    assert table.cut.tolist() == [0, 0, 1, 2, 0, 1, 2]
    np.testing.assert_allclose(table.line("device", 3), [0, 0, 6, 6, 0, 6, 30])
    np.testing.assert_allclose(table.line("server", 3), [0, 4.5, 1.5, 0, 6, 3, 0])
    np.testing.assert_allclose(table.line("sent", 3), [0, 7500, 1500, 0, 7500, 1500, 0])
    assert table.on_device.tolist() == [True, False, False, True, False, False, True]


def test_gain_counts_a_task_and_adds_a_sigmoid_of_its_accuracy():
    gains = Gain().of(np.array([0.0, 0.527, 0.743]), 0.527)
    np.testing.assert_allclose(gains, [0.0, 1.05, 1 + 0.1 / (1 + np.exp(-16 * 0.216))])


def test_a_fitted_line_is_the_least_squares_one_and_never_negative():
    line = fit_line([1, 2, 3, 4], [3.0, 5.0, 7.0, 9.0])
    assert (line.k, line.b, line.error) == pytest.approx((2.0, 1.0, 0.0))
    through_zero = fit_line([1, 2, 4], [1.0, 3.0, 7.0])
    assert through_zero.b == 0
    assert through_zero.k == pytest.approx((1 * 1 + 2 * 3 + 4 * 7) / 21)
    assert through_zero.error > 0


def test_costs_and_tables_come_back_from_files_and_others_are_refused(tmp_path):
    costs = small_costs()
    save_costs(costs, tmp_path / "costs.json")
    assert load_costs(tmp_path / "costs.json") == costs
    (tmp_path / "table.json").write_bytes(encode_table(costs.table()))
    for name in ("costs.json", "table.json"):
        table = load_table(tmp_path / name)
        np.testing.assert_array_equal(table.device_k, costs.table().device_k)
        assert table.on_device.dtype == bool
    (tmp_path / "other.json").write_text('{"exit": [0, 1]}')
    with pytest.raises(FormatError, match="must have exactly"):
        load_table(tmp_path / "other.json")
    with pytest.raises(DataError, match="cannot read"):
        load_table(tmp_path / "nothing.json")
