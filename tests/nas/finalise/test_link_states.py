"""What a tree does in each state of the link, in milliseconds worked out by hand."""

import dataclasses

import msgspec
from networks import scenario
from trees import FAST_MBPS, RTT_MS, SLOW_MBPS, cloud_only, device_only, forked_tree

from modeltree.link.transfer_time import TransferModel
from nas.finalise.link_states import link_states


def link(**changes):
    told = scenario(mbps=(SLOW_MBPS, FAST_MBPS))
    return dataclasses.replace(told, transfer=TransferModel(rtt_ms=RTT_MS), **changes)


def test_each_state_has_its_leaf_and_every_choice_its_time_there():
    """At 1 and 8 Mbit/s 4000 bytes take 32 and 4 ms; the round trip is 10 ms, the cloud's part half a one."""
    others = {"device_only": device_only(), "cloud_raw": cloud_only(), "tree": forked_tree()}
    slow, fast = link_states(forked_tree(), others, link())
    assert (slow["leaf"], fast["leaf"]) == (2, 1)
    assert slow["latency_ms"] == {"device_only": 60, "cloud_raw": 42.5, "tree": 50}
    assert fast["latency_ms"] == {"device_only": 60, "cloud_raw": 14.5, "tree": 18.5}
    assert slow["path"].endswith("2 layers compressed")
    assert "place 1" in fast["path"]
    assert [one["chance"] for one in (slow, fast)] == [0.5, 0.5]


def test_states_have_round_trips_of_their_own():
    types = msgspec.structs.replace(link().types, rtt_ms=(40.0, 5.0))
    tree = msgspec.structs.replace(forked_tree(), types=types, version=3)
    slow, fast = link_states(tree, {"tree": tree, "raw": cloud_only()}, link(types=types))
    assert (slow["rtt_ms"], fast["rtt_ms"]) == (40, 5)
    assert (slow["latency_ms"]["raw"], fast["latency_ms"]["tree"]) == (72.5, 13.5)


def test_bytes_of_messages_count_once():
    """A tree for a link that adds 1000 bytes to a message says so in its hand-overs' bytes already."""
    [_, fast] = link_states(forked_tree(), {"tree": forked_tree()}, link(message_bytes=1000))
    assert fast["latency_ms"]["tree"] == 18.5
