"""Inference over several members on loopback, and what happens when one of them is not as it should be."""

import socket
import threading
import time

import numpy as np
import pytest
from certificates import Authority
from chain_members import BLOCKS, SIZES, Running, members, whole

from runtime.chain.forwarding import NobodyLeft, forward
from runtime.chain.neighbours import Identity, Neighbours, transport_of
from runtime.chain.placement_file import Member
from runtime.chain.route import Route, routes
from runtime.server.fronts.admission import ServerTls
from runtime.wire.transports import Refused, open_transport

X = np.random.default_rng(7).normal(size=(1, SIZES[0])).astype(np.float32)


def _neighbours(placement, **options):
    who = Identity(**options)
    return Neighbours(placement=placement, connect=lambda member: transport_of(member, who))


def _asked(neighbours, *, until_s=5.0, bits=32):
    route = routes(neighbours.placement, 0, 2, neighbours.healthy)
    assert route is not None
    return forward(neighbours, route, X, classes=(SIZES[-1],), until=time.monotonic() + until_s, bits=bits)


def test_feature_maps_go_from_member_to_member():
    a, b, c = Running("a"), Running("b"), Running("c")
    with members(a, b, c) as placement, _neighbours(placement) as neighbours:
        done = _asked(neighbours)
    np.testing.assert_allclose(done.output, whole(X), rtol=1e-5)
    assert [one.blocks[index].ran for index, one in enumerate((a, b, c))] == [1, 1, 1]
    assert sum(block.ran for one in (a, b, c) for block in one.blocks.values()) == 3
    assert (done.first, done.attempts) == ("a", 1)


def test_coded_feature_maps_lose_little():
    a, b = Running("a"), Running("b")
    with members(a, b) as placement, _neighbours(placement) as neighbours:
        done = _asked(neighbours, bits=16)
    np.testing.assert_allclose(done.output, whole(X), atol=1e-2)


@pytest.mark.parametrize("lost", ["a", "b", "c"])
def test_a_lost_member_is_gone_around_and_the_answer_is_right(lost):
    running = {name: Running(name) for name in "abc"}
    with members(*running.values()) as placement, _neighbours(placement) as neighbours:
        _asked(neighbours)
        running[lost].stop()
        began = time.monotonic()
        done = _asked(neighbours)
        assert time.monotonic() - began < 4
    np.testing.assert_allclose(done.output, whole(X), rtol=1e-5)


def test_a_member_that_has_stopped_is_noticed_by_who_asked_it():
    a, b, c = Running("a"), Running("b"), Running("c")
    with members(a, b, c) as placement, _neighbours(placement) as neighbours:
        _asked(neighbours)
        b.blocks[1].slow_s = 3.0
        done = _asked(neighbours)
        b.blocks[1].slow_s = 0.0
    assert done.seconds < 2.5
    np.testing.assert_allclose(done.output, whole(X), rtol=1e-5)
    assert done.first == "a"
    assert done.attempts == 1  # the device never knew: a had kept the feature map


def test_a_member_with_another_bundle_refuses_and_is_gone_around():
    a, b, c = Running("a"), Running("b", holds=(0,)), Running("c")
    with members(a, b, c) as placement, _neighbours(placement) as neighbours:
        done = _asked(neighbours)
        assert b.member.stages == (0,)
    np.testing.assert_allclose(done.output, whole(X), rtol=1e-5)


def test_with_nobody_left_the_sender_is_told():
    a, b = Running("a"), Running("b")
    with members(a, b) as placement, _neighbours(placement) as neighbours:
        a.stop()
        b.stop()
        with pytest.raises(NobodyLeft, match="stage 0"):
            _asked(neighbours, until_s=3.0)


def test_a_member_that_joins_is_used():
    a, b = Running("a", holds=(0,)), Running("b")
    with members(a) as alone, _neighbours(alone) as neighbours:
        with pytest.raises(NobodyLeft):
            _asked(neighbours)
        joined = b.reserve()
        import msgspec

        stages = tuple(
            msgspec.structs.replace(stage, members=("a", "b") if index == 0 else ("b",))
            for index, stage in enumerate(alone.stages)
        )
        grown = msgspec.structs.replace(alone, stages=stages, members=(*alone.members, joined))
        assert grown.id == alone.id
        b.begin(grown)
        a.member.neighbours.take(grown)
        neighbours.take(grown)
        time.sleep(1.1)  # a was found wanting a moment ago
        np.testing.assert_allclose(_asked(neighbours).output, whole(X), rtol=1e-5)
        b.stop()


def test_routes_elsewhere_reach_nobody():
    stranger = socket.create_server(("127.0.0.1", 0))
    calls = []
    threading.Thread(target=lambda: calls.append(stranger.accept()), daemon=True).start()
    where = f"127.0.0.1:{stranger.getsockname()[1]}"
    a, b = Running("a"), Running("b")
    with members(a, b) as placement, open_transport(placement.members[0].address) as hostile:
        good = routes(placement, 0, 2, frozenset("ab"))
        begin = f"chain.{placement.id}"
        for name in (
            f"{begin}.0.2.a.{where}.b", f"{begin}.0.2.a.b.a", f"{begin}.0.9.a.a.a", f"chain.{'0' * 16}.0.2.a.a.a",
            f"{begin}.0.2.b.b.b", f"{begin}.0.2.a.a.a.a", f"{begin}.-1.2.a.a.a.a", "chain.", good.name + "\n",
            good.name.replace("chain", "CHAIN"),
        ):  # fmt: skip
            with pytest.raises(Refused):
                hostile.infer(name, X, bits=32, timeout_s=2.0)
        assert sum(block.ran for one in (a, b) for block in one.blocks.values()) == 0
    stranger.close()
    assert calls == [] or calls[0][1] is None


def test_one_request_costs_no_more_calls_than_its_retries_allow():
    a, b, c = (Running(name) for name in "abc")
    with members(a, b, c) as placement, _neighbours(placement) as neighbours:
        for one in (a, b, c):
            del one.blocks[2].matrix  # the last block fails everywhere
        with pytest.raises(NobodyLeft):
            _asked(neighbours, until_s=10.0)
        assert sum(block.ran for one in (a, b, c) for block in one.blocks.values()) <= 40


def test_members_speak_mutual_tls_and_tokens(tmp_path):
    authority, other = Authority(tmp_path, "ours"), Authority(tmp_path, "theirs")
    files = {name: authority.signed(name) for name in ("a", "b", "device")}
    tls = {name: ServerTls(certificate=files[name]["certificate"], key=files[name]["key"], ca=authority.pem)
           for name in "ab"}  # fmt: skip
    who = Identity(token="secret", ca=authority.pem, **files["b"])
    a, b = (Running(name, token="secret", tls=tls[name]) for name in "ab")
    with members(a, b, identity=who) as placement:
        ours = {"token": "secret", "ca": authority.pem, **files["device"]}
        with _neighbours(placement, **ours) as neighbours:
            np.testing.assert_allclose(_asked(neighbours).output, whole(X), rtol=1e-5)
        for wrong in ({"token": "guessed"}, {**other.signed("thief")}):
            with _neighbours(placement, **(ours | wrong)) as neighbours, pytest.raises(NobodyLeft):
                _asked(neighbours, until_s=3.0)


def test_the_stage_of_a_route_counts_the_blocks_that_are_left():
    a, b = Running("a"), Running("b")
    with members(a, b) as placement, _neighbours(placement) as neighbours:
        route = Route(placement=placement.id, stage=2, retries=0, members=("a",))
        last = a.blocks[2]
        x = np.ones((1, SIZES[2]), np.float32)
        done = forward(neighbours, route, x, classes=(SIZES[3],), until=time.monotonic() + 5)
        np.testing.assert_allclose(done.output, x @ last.matrix, rtol=1e-5)
        assert a.member.info(route.name).shape_in == (SIZES[2],)
    assert len(BLOCKS) == 3
    assert Member(name="a", address="grpc://127.0.0.1:1").metrics == ""
