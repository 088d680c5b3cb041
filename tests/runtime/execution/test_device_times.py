"""How long a block takes here, as a device learns it from its own runs."""

from types import SimpleNamespace

import numpy as np
import pytest

from runtime.execution.device import Device


def device_with_times(monkeypatch, *spent_s):
    """A real `Device` of one block whose runs take so long, on a clock of the test's."""
    times, now = list(spent_s), [0.0]

    class Runs:
        def __init__(self, path, **_):
            self.shape_in = (1, 2)

        def run(self, x):
            now[0] += times.pop(0)
            return x

    monkeypatch.setattr("runtime.execution.device.Library", Runs)
    monkeypatch.setattr("runtime.execution.device.check_runs_here", lambda manifest, target: None)
    block = SimpleNamespace(in_shape=(2,), out_shape=(2,), libraries=[SimpleNamespace(target="host")])
    bundle = SimpleNamespace(
        manifest=SimpleNamespace(blocks={"b": block}), runtime_path=lambda target: None,
        library_path=lambda name, **_: "b.so",
    )  # fmt: skip
    return Device(bundle, target="host", clock=lambda: now[0])


def test_a_blocks_time_is_its_mean_and_four_deviations(monkeypatch):
    device = device_with_times(monkeypatch, 1.0, 2.0)
    x = np.zeros((1, 2), np.float32)
    assert (device.expected_s("b"), device.within_s("b")) == (0.0, 0.0)
    device.run("b", x)
    assert (device.expected_s("b"), device.within_s("b")) == (1.0, 1.0 + 4 * 0.5)
    device.run("b", x)  # 1 s away: mean 1 + 0.2, deviation 0.5 + 0.2 (1 - 0.5)
    assert device.expected_s("b") == pytest.approx(1.2)
    assert device.within_s("b") == pytest.approx(1.2 + 4 * 0.6)


def test_the_first_run_of_all_does_not_count_once_it_is_warm(monkeypatch):
    device = device_with_times(monkeypatch, 100.0, 1.0, 1.0, 1.0)
    device.warm_up()
    assert device.expected_s("b") == pytest.approx(1.0)
