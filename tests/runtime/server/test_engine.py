"""The engine behind the fronts: right answers under load, refusals at once, nothing lost at the end."""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from bundles import FROM_FOUR, FROM_IMAGE, IMAGE
from engine_callers import SHAPES, Fake, alone, close, images, occupied, pair, until
from prometheus_client import generate_latest
from small_bundle import BATCHES, write_small_bundle

from modeltree.errors import ConfigError, DataError, NasError
from runtime.execution.bundle import Bundle
from runtime.execution.processor import chosen_target, lacking
from runtime.server.engine.engine import BundleEngine, ModelEngine
from runtime.server.engine.timing import ServiceTimes
from runtime.server.interface import Busy, Draining, ModelInfo, UnknownModel


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_small_bundle(tmp_path_factory.mktemp("served") / "old")


@pytest.fixture
def callers():
    with ThreadPoolExecutor(32) as pool:
        yield pool


# ---- answers


@pytest.mark.parametrize("eager", [True, False])
@pytest.mark.parametrize("workers", [1, 2])
def test_every_answer_under_load_is_the_librarys_own(folder, callers, workers, eager):
    wanted = {model: alone(folder, model, images(model, 64)) for model in SHAPES}
    with BundleEngine(folder, workers=workers, eager=eager) as engine:

        def ask(index):
            model = (FROM_IMAGE, FROM_FOUR)[index % 2]
            first, count = index * 7 % 50, 1 + index % 11 * (index % 3 == 0)
            found = engine.infer(model, images(model, 64)[first : first + count])
            close(found.output, wanted[model][first : first + count])
            assert found.seconds > 0

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(ask, range(500)))
        assert engine.waiting == (0, 0)
        text = generate_latest(engine.metrics).decode()
    assert f'nas_requests_total{{model="{FROM_IMAGE}",outcome="ok"}} 250.0' in text
    assert "nas_ready 1.0" in text


def test_models_are_the_rests_of_the_bundle_with_their_shapes(folder):
    with BundleEngine(folder, eager=False) as engine:
        pixels = {"mean": (0.5,) * 3, "std": (0.25,) * 3}  # of the tree, where a whole image is what enters
        wanted = {name: ModelInfo(shape_in=shape, shape_out=(2,)) for name, shape in SHAPES.items()}
        wanted[FROM_IMAGE] = ModelInfo(shape_in=SHAPES[FROM_IMAGE], shape_out=(2,), **pixels)
        assert engine.models == wanted


def test_what_waits_is_run_in_batches_when_that_is_faster(callers):
    model = Fake(seconds=0.01)
    with ModelEngine([model]) as engine:
        held = occupied(engine, model, callers)
        asked = [callers.submit(engine.infer, "fake", pair(float(value))) for value in range(8)]
        until(lambda: engine.waiting[0] == 8)
        model.gate.set()
        for value, one in enumerate(asked):
            np.testing.assert_array_equal(one.result(10).output, pair(2.0 * value))
        held[0].result(10)
    assert model.sizes == [1, 4, 4]


def test_a_batch_size_that_measured_slow_is_left_alone(callers):
    model = Fake()
    for _ in range(50):
        model.times.note(4, 1.0)
    with ModelEngine([model]) as engine:
        occupied(engine, model, callers)
        asked = [callers.submit(engine.infer, "fake", pair(1.0)) for _ in range(8)]
        until(lambda: engine.waiting[0] == 8)
        model.gate.set()
        assert all(one.result(10) for one in asked)
    assert set(model.sizes) == {1}


def test_a_request_of_many_images_is_split_over_batches():
    model = Fake(batches=(1, 4))
    with ModelEngine([model]) as engine:
        x = np.arange(22, dtype=np.float32).reshape(11, 2)
        np.testing.assert_array_equal(engine.infer("fake", x).output, 2 * x)
    assert sum(model.sizes) >= 11
    assert max(model.sizes) == 4


# ---- refusals


@pytest.mark.parametrize(
    "wrong", [np.zeros((1, 3), np.float32), np.zeros((0, 2), np.float32), np.zeros((1, 2)), pair(np.nan), pair(np.inf)]
)
def test_input_that_does_not_fit_is_refused(wrong):
    with ModelEngine([Fake()]) as engine, pytest.raises(DataError):
        engine.infer("fake", wrong)


def test_an_unknown_model_is_refused():
    with ModelEngine([Fake()]) as engine, pytest.raises(UnknownModel):
        engine.infer("another", pair(0.0))


def test_a_full_queue_refuses_at_once_and_recovers(callers):
    model = Fake()
    with ModelEngine([model], max_requests=3) as engine:
        occupied(engine, model, callers)
        asked = [callers.submit(engine.infer, "fake", pair(1.0)) for _ in range(3)]
        until(lambda: engine.waiting[0] == 3)
        started = time.monotonic()
        with pytest.raises(Busy):
            engine.infer("fake", pair(1.0))
        assert time.monotonic() - started < 1
        model.gate.set()
        assert all(one.result(10) for one in asked)
        engine.infer("fake", pair(1.0))


def test_waiting_bytes_are_bounded(callers):
    model = Fake()
    with ModelEngine([model], max_bytes=100) as engine:
        occupied(engine, model, callers)
        asked = callers.submit(engine.infer, "fake", np.zeros((10, 2), np.float32))
        until(lambda: engine.waiting == (1, 80))
        with pytest.raises(Busy):
            engine.infer("fake", np.zeros((3, 2), np.float32))
        model.gate.set()
        asked.result(10)
        with pytest.raises(Busy, match="fewer images"):
            engine.infer("fake", np.zeros((13, 2), np.float32))


def test_a_deadline_that_the_queue_cannot_keep_is_refused_at_once(callers):
    model = Fake(batches=(1,), seconds=0.2)
    with ModelEngine([model]) as engine:
        occupied(engine, model, callers)
        for _ in range(4):
            callers.submit(engine.infer, "fake", pair(1.0))
        until(lambda: engine.waiting[0] == 4)
        started = time.monotonic()
        with pytest.raises(Busy, match="would take"):
            engine.infer("fake", pair(1.0), deadline_s=0.5)
        with pytest.raises(Busy, match="at best"):
            engine.infer("fake", pair(1.0), deadline_s=0.1)
        assert time.monotonic() - started < 0.2
        assert engine.waiting[0] == 4
        model.gate.set()


def test_a_caller_whose_deadline_passes_in_the_queue_is_let_go_and_its_work_dropped(callers):
    model = Fake(seconds=1e-6)
    with ModelEngine([model]) as engine:
        occupied(engine, model, callers)
        with pytest.raises(Busy, match="deadline passed"):
            engine.infer("fake", pair(1.0), deadline_s=0.1)
        assert engine.waiting == (0, 0)
        model.gate.set()
    assert model.sizes == [1]


def test_who_can_only_be_late_makes_room_for_who_need_not_be(callers):
    model = Fake(batches=(1,), seconds=0.2)
    with ModelEngine([model]) as engine:
        occupied(engine, model, callers)
        hopeless = callers.submit(engine.infer, "fake", pair(1.0), deadline_s=0.5)
        until(lambda: engine.waiting[0] == 1)
        asked = callers.submit(engine.infer, "fake", pair(2.0))
        until(lambda: engine.waiting[0] == 2)
        time.sleep(0.35)
        model.gate.set()
        with pytest.raises(Busy):
            hopeless.result(10)
        np.testing.assert_array_equal(asked.result(10).output, pair(4.0))
    assert model.sizes == [1, 1]


def test_times_that_were_wrong_once_do_not_refuse_for_ever():
    model = Fake(seconds=0.001)
    for _ in range(50):
        model.times.note(1, 30.0)
        model.times.note(4, 30.0)
    with ModelEngine([model]) as engine:
        for _ in range(3):
            engine.infer("fake", pair(1.0), deadline_s=5.0)


def test_a_request_that_breaks_its_batch_fails_alone(callers):
    model = Fake()
    with ModelEngine([model]) as engine:
        occupied(engine, model, callers)
        asked = [callers.submit(engine.infer, "fake", pair(value)) for value in (1.0, Fake.poison, 3.0, 4.0)]
        until(lambda: engine.waiting[0] == 4)
        model.gate.set()
        with pytest.raises(NasError, match="log"):
            asked[1].result(10)
        for one, value in ((asked[0], 1.0), (asked[2], 3.0), (asked[3], 4.0)):
            np.testing.assert_array_equal(one.result(10).output, pair(2 * value))
        assert engine.live()


def test_mates_of_any_content_do_not_change_an_answer(folder, callers):
    x = images(FROM_IMAGE, 32)
    wanted = alone(folder, FROM_IMAGE, x)
    with BundleEngine(folder, workers=1) as engine:

        def poison(index):
            bad = np.full((1, *IMAGE), (np.nan, 3e38, np.inf)[index % 3], np.float32)
            with pytest.raises(DataError) if index % 3 != 1 else np.errstate(all="ignore"):
                engine.infer(FROM_IMAGE, bad)

        spoilers = [callers.submit(poison, index) for index in range(60)]
        good = [callers.submit(engine.infer, FROM_IMAGE, x[index % 32][None]) for index in range(120)]
        for index, one in enumerate(good):
            close(one.result(30).output[0], wanted[index % 32])
        for one in spoilers:
            one.result(30)


# ---- the end


def test_draining_ends_what_is_in_and_takes_nothing_new(callers):
    model = Fake()
    with ModelEngine([model]) as engine:
        occupied(engine, model, callers)
        asked = [callers.submit(engine.infer, "fake", pair(float(value))) for value in range(10)]
        until(lambda: engine.waiting[0] == 10)
        drained = callers.submit(engine.drain, 10)
        until(lambda: not engine.ready())
        assert engine.live()
        with pytest.raises(Draining):
            engine.infer("fake", pair(1.0))
        model.gate.set()
        assert drained.result(10)
        for value, one in enumerate(asked):
            np.testing.assert_array_equal(one.result(10).output, pair(2.0 * value))


def test_draining_takes_no_longer_than_it_may_and_who_waits_is_told(callers):
    model = Fake()
    engine = ModelEngine([model])
    held = occupied(engine, model, callers)
    asked = callers.submit(engine.infer, "fake", pair(1.0))
    until(lambda: engine.waiting[0] == 1)
    assert not engine.drain(0.05)
    closing = callers.submit(engine.close)
    for one in (*held, asked):
        with pytest.raises(Draining):
            one.result(10)
    model.gate.set()
    closing.result(10)


# ---- choices


def test_the_least_time_an_image_decides_the_batch():
    times = ServiceTimes((1, 4, 8))
    for batch, seconds in ((1, 1.0), (4, 2.0), (8, 3.0)):
        times.note(batch, seconds)
    for waiting, size in ((1, 1), (2, 1), (3, 4), (5, 4), (6, 4), (7, 8), (8, 8), (20, 8)):
        assert times.chosen([np.inf] * waiting) == size, waiting
    assert times.expected_s(16) == 16 * 3 / 8


def test_work_decides_what_is_worth_more_and_time_what_is_in_time():
    """Under load a call takes longer than its work; a batch of eight for six images is then no bargain."""
    times = ServiceTimes((1, 4, 8))
    for batch, seconds, work in ((1, 3.5, 1.4), (4, 7.0, 4.9), (8, 10.0, 9.6)):
        times.note(batch, seconds, work)
    assert times.chosen([np.inf] * 6) == 4
    assert times.chosen([np.inf] * 8) == 8
    assert times.chosen([6.0] * 8) == 1


@pytest.mark.parametrize(("slack", "size"), [(10.0, 8), (2.5, 4), (1.5, 1), (0.5, 1)])
def test_no_member_is_made_late_by_its_batch(slack, size):
    times = ServiceTimes((1, 4, 8))
    for batch, seconds in ((1, 1.0), (4, 2.0), (8, 3.0)):
        times.note(batch, seconds)
    assert times.chosen([slack] + [np.inf] * 7) == size


def test_now_and_then_another_size_is_tried_again():
    times = ServiceTimes((1, 4))
    times.note(4, 100.0)
    chosen = []
    for _ in range(100):
        times.note(1, 1.0)
        chosen.append(times.chosen([np.inf] * 4))
    assert chosen.count(4) == 2
    assert 4 not in {times.chosen([np.inf] * 3) for _ in range(100)}


def test_the_target_that_runs_here_is_taken_and_another_one_only_when_named(folder):
    manifest = Bundle.open(folder).manifest
    assert chosen_target(manifest) == "host"
    assert chosen_target(manifest, "host") == "host"
    with pytest.raises(ConfigError, match="known are host"):
        chosen_target(manifest, "pi4")
    entry = manifest.targets["host"]
    assert lacking(entry, machine="riscv64")


def test_a_kind_of_weights_that_was_not_compiled_is_refused(folder):
    with pytest.raises(ConfigError, match="known are host f32"):
        BundleEngine(folder, variant="int8")


def test_batch_sizes_of_the_bundle_are_used(folder):
    with BundleEngine(folder) as engine:
        assert engine._models[FROM_FOUR].times.batches == BATCHES
