"""Routes: what is accepted, and that nothing else is."""

import dataclasses
import random
import string

import pytest

from modeltree.errors import FormatError
from runtime.chain.placement_file import Member, Placement, Stage, decode_placement
from runtime.chain.route import MAX_RETRIES, parse_route, routes

BLOCKS = [f"{index:020x}" for index in range(4)]


@pytest.fixture
def placement():
    return Placement(
        stages=(
            Stage(blocks=(BLOCKS[0],), members=("a", "b")),
            Stage(blocks=(BLOCKS[1], BLOCKS[2]), members=("b", "c")),
            Stage(blocks=(BLOCKS[3],), members=("c", "a")),
        ),
        members=tuple(Member(name=name, address=f"grpc://127.0.0.1:{9000 + i}") for i, name in enumerate("abc")),
    )


def test_a_route_is_read_as_it_was_written(placement):
    route = routes(placement, 0, MAX_RETRIES, frozenset("abc"))
    assert route.members == ("a", "b", "c")
    assert parse_route(route.name, placement) == route


def test_every_hop_shortens_the_route(placement):
    route = routes(placement, 0, 2, frozenset("abc"))
    while len(route.members) > route.held:
        following = route.after(retries=route.retries)
        assert following.stage > route.stage
        assert len(following.members) < len(route.members)
        route = following
    assert route.stage + route.held == len(placement.stages)


def test_routes_go_around_who_is_not_healthy(placement):
    assert routes(placement, 0, 0, frozenset("bc")).members == ("b", "b", "c")
    assert routes(placement, 1, 0, frozenset("a")) is None


@pytest.mark.parametrize(
    "change",
    [
        {"placement": "0" * 16}, {"stage": 1}, {"stage": 3}, {"retries": 3}, {"members": ("a", "b")},
        {"members": ("a", "b", "x")}, {"members": ("c", "b", "c")}, {"members": ("a", "b", "a")},
        {"members": ("a", "b", "device")}, {"members": ("a", "b", "127.0.0.1:9000")}, {"members": ("a", "b", "c", "a")},
    ],
)  # fmt: skip
def test_a_route_that_the_placement_does_not_allow_is_refused(placement, change):
    route = dataclasses.replace(routes(placement, 0, 2, frozenset("abc")), **change)
    with pytest.raises(FormatError):
        parse_route(route.name, placement)


def test_a_route_may_not_come_back_to_whom_it_left(placement):
    loose = Placement(
        stages=tuple(Stage(blocks=(block,), members=("a", "b")) for block in BLOCKS), members=placement.members
    )
    name = f"chain.{loose.id}.0.2.a.b.a.b"
    with pytest.raises(FormatError, match="comes back"):
        parse_route(name, loose)


def test_fuzzed_routes_are_refused_or_mean_what_they_say(placement):
    rng = random.Random(0)
    good = routes(placement, 0, 2, frozenset("abc")).name
    letters = string.printable + "é\u202e"
    refused = 0
    for _ in range(3000):
        fuzzed = list(good)
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(fuzzed))
            action = rng.random()
            if action < 0.4:
                fuzzed[at] = rng.choice(letters)
            elif action < 0.7:
                fuzzed.insert(at, rng.choice(letters) * rng.randint(1, 300))
            elif len(fuzzed) > 1:
                del fuzzed[at]
        name = "".join(fuzzed)
        try:
            route = parse_route(name, placement)
        except FormatError:
            refused += 1
            continue
        assert route.name == name
        assert all(who in placement.stages[i].members for i, who in enumerate(route.members, route.stage))
        assert route.retries <= MAX_RETRIES
    assert refused > 2500


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"members": ("a", "device")}, "device alone"),
        ({"members": ("stranger",)}, "members of the file"),
        ({"members": ()}, "needs blocks"),
        ({"expected_ms": -1.0}, "a time from 0 up"),
    ],
)
def test_a_placement_that_contradicts_itself_is_refused(placement, change, message):
    import msgspec

    stage = msgspec.structs.replace(placement.stages[0], **change)
    with pytest.raises(FormatError, match=message):
        msgspec.structs.replace(placement, stages=(stage, *placement.stages[1:]))


@pytest.mark.parametrize("data", [b"", b"[]", b'{"stages": []}', b'{"stages": 1, "members": []}', b"[" * 100_000])
def test_what_is_no_placement_is_refused(data):
    with pytest.raises(FormatError, match="not a placement"):
        decode_placement(data, "placement.json")
