"""A session against a real bundle and a real engine: it follows the link, and never loses an answer."""

import asyncio
import random
import threading
import time

import numpy as np
import pytest
from forked_run import (
    CLASSES,
    EDGE_MBPS,
    FAST_MBPS,
    FEATURES,
    FROM_IMAGE,
    IMAGE,
    MEAN,
    SECOND,
    SLOW_MBPS,
    STD,
    compiled,
    normalised,
    wanted,
)
from in_process_transport import InProcessTransport

from modeltree.errors import ConfigError, DataError, NasError
from runtime.execution.bundle import Bundle
from runtime.execution.device import Device
from runtime.options import MODES, SessionOptions
from runtime.remote.circuit_breaker import Breaker
from runtime.result import Result
from runtime.server.interface import Answer, Busy, ModelInfo
from runtime.session import Session

MODE = {mode: SessionOptions(mode=mode) for mode in MODES}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return compiled(tmp_path_factory.mktemp("forked"))


class Cloud:
    """An engine that runs the rests of a bundle; `trouble` is called before each and may raise or wait."""

    def __init__(self, device):
        self.device, self.trouble, self.asked = device, lambda: None, 0
        self.models = {
            FROM_IMAGE: ModelInfo(shape_in=IMAGE, shape_out=(4,), mean=MEAN, std=STD),
            SECOND: ModelInfo(shape_in=FEATURES, shape_out=(4,)),
        }
        self._lock = threading.Lock()

    def infer(self, model, x, *, deadline_s):
        self.asked += 1
        self.trouble()
        with self._lock:
            return Answer(output=np.concatenate([self.device.run(model, one[None]) for one in x]), seconds=1e-4)

    def ready(self):
        return True


class FixedLink:
    """A link whose bandwidth the test says."""

    def __init__(self, mbps):
        self.mbps, self.given_up = mbps, 0

    def bandwidth_type(self):
        return int(self.mbps >= EDGE_MBPS), self.mbps

    def observe(self, exchange, *, finished=True):
        self.given_up += not finished

    def expected_s(self, size_bytes):
        return None


@pytest.fixture
def opened(bundle):
    """(session, cloud, link) with an in-process server."""
    device = Device(Bundle.open(bundle))
    device.warm_up()
    cloud, link = Cloud(Device(Bundle.open(bundle))), FixedLink(FAST_MBPS)
    session = Session(device, link, InProcessTransport(cloud), SessionOptions(timeout_s=1.0), rng=random.Random(0))
    with session:
        yield session, cloud, link


def image(seed=0):
    return np.random.default_rng(seed).integers(0, 256, IMAGE, dtype=np.uint8)


def close_to(result, pixels, tolerance=1e-4):
    expected = wanted(result.nodes, normalised(pixels))
    return np.abs(result.output - expected).max() <= tolerance * max(1.0, np.abs(expected).max())


@pytest.mark.parametrize(("mbps", "nodes", "who"), [(FAST_MBPS, (1,), "cloud"), (SLOW_MBPS, (0, 2), "device")])
def test_the_path_follows_the_bandwidth_and_the_answer_is_that_paths(opened, mbps, nodes, who):
    session, cloud, link = opened
    link.mbps = mbps
    result = session.infer(image())
    assert (result.nodes, result.answered_by) == (nodes, who)
    assert close_to(result, image())
    assert cloud.asked == (who == "cloud")


def test_features_cross_when_the_link_is_faster_at_the_second_fork(opened):
    session, _, link = opened
    speeds = iter([SLOW_MBPS, FAST_MBPS])
    link.bandwidth_type = lambda: (int((mbps := next(speeds)) >= EDGE_MBPS), mbps)
    result = session.infer(image())
    assert (result.nodes, result.answered_by) == ((0, 3), "cloud")
    assert close_to(result, image())
    assert (result.types, result.mbps) == ((0, 1), (SLOW_MBPS, FAST_MBPS))


def test_time_is_told_by_part_and_adds_up(opened):
    session, _, _ = opened
    parts = session.infer(image()).parts
    told = parts.device + parts.encode + parts.transfer + parts.cloud + parts.wait
    assert told == pytest.approx(parts.total, abs=0.05)
    assert parts.cloud > 0


@pytest.mark.parametrize("error", [Busy("no room"), NasError("broken"), ValueError("a bug")])
def test_a_server_that_refuses_or_fails_costs_no_answer(opened, error):
    session, cloud, link = opened

    def trouble():
        raise error

    cloud.trouble = trouble
    result = session.infer(image())
    assert result.answered_by == "device"
    assert "went on here at place 0" in result.why
    assert close_to(result, image())
    assert link.given_up == 0  # a refusal says nothing of how fast the link is


def test_a_slow_server_is_left_in_time_for_the_deadline(bundle):
    device, cloud = Device(Bundle.open(bundle)), Cloud(Device(Bundle.open(bundle)))
    device.warm_up()
    cloud.trouble = lambda: time.sleep(3.0)
    options = SessionOptions(timeout_s=60.0)
    with Session(device, FixedLink(FAST_MBPS), InProcessTransport(cloud), options) as session:
        result = session.infer(image(), deadline_ms=300)
    assert result.answered_by == "device"
    assert result.parts.total < 2500  # and not the 3000 of the server; to the millisecond is for benchmarks
    assert close_to(result, image())


def test_a_deadline_that_leaves_no_time_is_not_spent_on_the_cloud(opened):
    session, cloud, _ = opened
    result = session.infer(image(), deadline_ms=0.001)
    assert (result.answered_by, cloud.asked, result.met) == ("device", 0, False)
    assert close_to(result, image())


def test_a_failing_server_is_left_alone_and_tried_again_later(opened):
    session, cloud, _ = opened
    now = [0.0]
    session.cloud.breaker = Breaker(lambda: now[0], random.Random(0), first_s=10.0)

    def trouble():
        raise Busy("no room")

    cloud.trouble = trouble
    session.infer(image())
    assert session.infer(image()).why.endswith("is left alone for a while")
    assert cloud.asked == 1
    cloud.trouble, now[0] = (lambda: None), 11.0
    assert session.infer(image()).answered_by == "cloud"
    assert session.cloud.breaker.failures == 0


def test_hundreds_of_random_faults_lose_no_answer_and_make_none_wrong(opened):
    session, cloud, link = opened
    rng = random.Random(1)
    session.cloud.breaker = Breaker(time.perf_counter, rng, first_s=1e-4, longest_s=1e-3)

    def trouble():
        kind = rng.randrange(4)
        if kind == 0:
            raise Busy("no room")
        if kind == 1:
            raise RuntimeError("killed")
        if kind == 2:
            time.sleep(0.02)

    cloud.trouble = trouble
    answered = {"cloud": 0, "device": 0}
    for number in range(300):
        link.mbps = rng.choice([SLOW_MBPS, FAST_MBPS])
        result = session.infer(image(number), deadline_ms=rng.choice([None, 10.0, 1000.0]))
        assert close_to(result, image(number))
        answered[result.answered_by] += 1
    assert min(answered.values()) > 20


def test_only_device_never_asks_and_only_cloud_never_answers_alone(bundle):
    device, cloud = Device(Bundle.open(bundle)), Cloud(Device(Bundle.open(bundle)))
    with Session(
        device, FixedLink(FAST_MBPS), InProcessTransport(cloud), SessionOptions(mode="only-device")
    ) as session:
        assert session.infer(image()).answered_by == "device"
    assert cloud.asked == 0

    def trouble():
        raise Busy("no room")

    with Session(device, FixedLink(SLOW_MBPS), InProcessTransport(cloud), MODE["only-cloud"]) as session:
        assert session.infer(image()).answered_by == "cloud"
        cloud.trouble = trouble
        with pytest.raises(NasError, match="no room"):
            session.infer(image())


def test_prefer_device_asks_only_when_it_cannot_be_in_time(bundle):
    device, cloud = Device(Bundle.open(bundle)), Cloud(Device(Bundle.open(bundle)))
    device.warm_up()
    with Session(
        device, FixedLink(FAST_MBPS), InProcessTransport(cloud), SessionOptions(mode="prefer-device")
    ) as session:
        result = session.infer(image(), deadline_ms=1000)
    assert (result.answered_by, cloud.asked) == ("device", 0)


def test_modes_and_servers_that_do_not_fit_are_refused(bundle):
    device = Device(Bundle.open(bundle))
    with pytest.raises(ConfigError, match="known are only-cloud"):
        Session.open(bundle, mode="cloudy")
    with pytest.raises(ConfigError, match="needs a server"):
        Session(device, FixedLink(1.0), None, SessionOptions(mode="only-cloud"))


@pytest.mark.parametrize("wrong", [
    np.zeros((11, 12, 2), np.uint8), np.zeros(IMAGE, np.float64), np.full(IMAGE, np.nan, np.float32),
    np.zeros(5, np.uint8),
])  # fmt: skip
def test_an_image_that_does_not_fit_is_refused_with_what_must_be(opened, wrong):
    with pytest.raises(DataError, match="image"):
        opened[0].infer(wrong)


def test_height_width_channels_and_normalised_images_give_the_same_answer(opened):
    session, _, link = opened
    link.mbps = SLOW_MBPS
    first = session.infer(image()).output
    assert np.array_equal(session.infer(np.moveaxis(image(), 0, -1)).output, first)
    assert np.allclose(session.infer(normalised(image())).output, first, atol=1e-5)


def test_a_session_opened_without_a_server_stays_here(bundle):
    with Session.open(bundle) as session:
        result = session.infer(image())
    assert result.answered_by == "device"
    assert close_to(result, image())


def test_a_list_is_answered_one_by_one_and_read_whole_before(opened):
    session, _, link = opened
    link.mbps = SLOW_MBPS
    results = session.infer([image(0), np.moveaxis(image(1), 0, -1), normalised(image(2))])
    assert all(close_to(result, image(seed)) for seed, result in enumerate(results))
    assert session.infer([]) == []
    ran = [result.nodes for result in session.infer((image(), image()))]
    assert ran == [(0, 2)] * 2
    with pytest.raises(DataError, match="image"):
        session.infer([image(), b"no picture"])
    assert asyncio.run(session.ainfer([image(), image()]))[1].nodes == (0, 2)


def test_the_likeliest_classes_are_named_with_their_probabilities():
    result = Result(
        output=np.log(np.array([0.2, 0.5, 0.3], np.float32)), nodes=(), answered_by="device", why="", types=(), mbps=(),
        classes=("ant", "bee", "cat"),
    )  # fmt: skip
    assert result.probabilities == pytest.approx([0.2, 0.5, 0.3], abs=1e-6)
    assert [name for name, _ in result.top(2)] == ["bee", "cat"]
    assert sum(share for _, share in result.top(9)) == pytest.approx(1.0)
    assert result.label == "bee"
    with pytest.raises(ConfigError, match="1 or more"):
        result.top(0)


def test_logits_however_large_give_probabilities():
    result = Result(output=np.array([1e4, 0.0], np.float32), nodes=(), answered_by="device", why="", types=(), mbps=())
    assert result.top(1) == [("0", 1.0)]


def test_an_answer_names_the_bundles_classes(opened):
    session, _, _ = opened
    result = session.infer(image())
    assert result.classes == CLASSES
    assert result.label == CLASSES[int(result.output.argmax())]
