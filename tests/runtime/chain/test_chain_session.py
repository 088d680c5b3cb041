"""The device's side of a chain: real members on loopback; the device's own blocks are the same small matrices."""

from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
from chain_members import BLOCKS, SIZES, Matrix, Running, members, whole

from modeltree.errors import ConfigError, DataError
from runtime.chain.neighbours import Identity, Neighbours, transport_of
from runtime.chain.placement_file import DEVICE, Stage
from runtime.chain.session import LOCAL, ChainSession

X = np.random.default_rng(7).normal(size=SIZES[0]).astype(np.float32)


class MatrixDevice:
    """What a session asks of a device. holds : indices of the blocks that it can run, `seconds` each."""

    def __init__(self, holds=(0, 1, 2), seconds=0.001):
        self.matrices = {BLOCKS[index]: Matrix(index) for index in holds}
        self.seconds = seconds
        shapes = zip(BLOCKS, SIZES[1:], strict=True)
        self.manifest = SimpleNamespace(blocks={name: SimpleNamespace(out_shape=(size,)) for name, size in shapes})

    def entering(self, picture):
        return picture[None], None

    def has(self, block):
        return block in self.matrices

    def within_s(self, block):
        return self.seconds

    def run(self, block, x):
        return self.matrices[block].run(x)

    @property
    def ran(self):
        return [block.ran for block in self.matrices.values()]


def _session(placement, device):
    who = Identity()
    return ChainSession(device, Neighbours(placement=placement, connect=lambda member: transport_of(member, who)))


def _first_on_device(placement):
    stages = (Stage(blocks=(BLOCKS[0],), members=(DEVICE,)), *placement.stages[1:])
    return msgspec.structs.replace(placement, stages=stages)


def test_the_device_runs_its_own_stages_and_hands_the_rest_over():
    a, b, device = Running("a"), Running("b"), MatrixDevice()
    with members(a, b) as placed:
        placement = _first_on_device(placed)
        for one in (a, b):
            one.member.neighbours.take(placement)
        with _session(placement, device) as session:
            done = session.infer(X)
    np.testing.assert_allclose(done.output, whole(X[None])[0], rtol=1e-5)
    assert (done.answered_by, done.why, done.attempts) == ("b", "", 1)
    assert device.ran == [1, 0, 0]
    assert sum(block.ran for one in (a, b) for block in one.blocks.values()) == 2
    assert done.ms >= done.device_ms + done.members_ms


def test_with_nobody_there_the_device_goes_on_alone_and_says_why():
    a, device = Running("a"), MatrixDevice()
    with members(a) as placement, _session(placement, device) as session:
        a.stop()
        done = session.infer(X)
    np.testing.assert_allclose(done.output, whole(X[None])[0], rtol=1e-5)
    assert done.answered_by == LOCAL
    assert done.why
    assert device.ran == [1, 1, 1]


def test_a_device_that_cannot_go_on_alone_says_so():
    a = Running("a")
    with members(a) as placement, _session(placement, MatrixDevice(holds=(0,))) as session:
        a.stop()
        with pytest.raises(DataError, match="whole bundle"):
            session.infer(X)


@pytest.mark.parametrize(("deadline_ms", "by"), [(400.0, LOCAL), (None, "a")])
def test_a_deadline_ends_the_wait_for_a_member_that_is_as_slow_as_planned(deadline_ms, by):
    a, device = Running("a"), MatrixDevice(seconds=0.05)
    with members(a) as placed:
        planned = tuple(msgspec.structs.replace(stage, expected_ms=10_000.0) for stage in placed.stages)
        placement = msgspec.structs.replace(placed, stages=planned)
        a.member.neighbours.take(placement)
        with _session(placement, device) as session:
            session.infer(X)
            a.blocks[0].slow_s = 1.0
            done = session.infer(X, deadline_ms=deadline_ms)
    assert done.answered_by == by
    np.testing.assert_allclose(done.output, whole(X[None])[0], rtol=1e-5)


def test_a_bundle_that_lacks_what_the_placement_gives_the_device_is_refused():
    a = Running("a")
    with members(a) as placed, pytest.raises(ConfigError, match="lacks"):
        _session(_first_on_device(placed), MatrixDevice(holds=(1, 2)))
