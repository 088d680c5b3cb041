"""The picture ladder: which rungs pay, worked out by hand, and a tree that has them."""

import msgspec
import pytest
from trees import EDGE_MBPS, FAST_MBPS, device_only, forked_tree, handover, leaf, node

from modeltree.errors import FormatError
from modeltree.offloading.actions import tree_table
from modeltree.tree import decode_tree, encode_tree
from modeltree.tree.render import render_text
from nas.config import SearchConfig
from nas.finalise.picture_ladder import with_rungs, worth_adding
from nas.treesearch.problem import guarded
from runtime.selection.branch_selection import MEASURED, on_known_links


def rung(code, size_bytes, accuracy):
    """All in the cloud, in 0.5 ms there."""
    fields = handover(0, size_bytes, FAST_MBPS, bits=8)
    fields["handover"] = msgspec.structs.replace(fields["handover"], code=code)
    return node(0, None, (), 0.0, **fields, leaf=leaf(0.0, 1.0, accuracy))


def test_each_rung_that_is_best_somewhere_between_the_types_is_added():
    small, large = rung("jpeg:50", 1000, 90.0), rung("jpeg:90", 3000, 92.0)
    # 60 ms here at 92 %; 10.5 + 8 ms at 90 % against 10.5 + 24 ms at 92 % at 1 Mbit/s, 1 and 3 ms at 8 Mbit/s
    assert worth_adding(device_only(), [small, large]) == [0, 1]
    hurried = msgspec.structs.replace(device_only(), max_latency_ms=75.0, version=5)  # a millisecond costs 2 points
    assert worth_adding(hurried, [small, large]) == [0]  # 16 ms / mbps are 2 at least


@pytest.mark.parametrize(
    ("added", "why"),
    [
        (rung("jpeg:50", 1000, 75.0), "17 points are 34 of reward, up to 49 ms less are 29 at most"),
        (rung("jpeg:90", 50000, 92.0), "410 ms at 1 Mbit/s, 60.5 ms at 8"),
        (rung("jpeg:90", 48000, 92.0), "58.5 ms at 8 Mbit/s: 0.9 of reward less 0 is more than a tie only there"),
    ],
)
def test_what_another_leaf_beats_everywhere_is_left_out(added, why):
    wanted = [0] if "more than a tie" in why else []
    assert worth_adding(device_only(), [added]) == wanted


def test_a_leaf_that_the_tree_has_is_not_added_again():
    large = rung("jpeg:90", 3000, 92.0)
    tree = with_rungs(device_only(), [large])
    assert worth_adding(tree, [large]) == []


def test_what_the_guard_takes_from_a_rung_counts():
    small = rung("jpeg:50", 1000, 90.0)

    def charged(accuracy):
        return guarded(accuracy, 92.0, 1.0)

    assert worth_adding(device_only(), [small], charged) == [0]  # a point beyond counts ten: 22 of reward, 29 for 49 ms
    worse = rung("jpeg:50", 1000, 89.0)
    assert worth_adding(device_only(), [worse]) == [0]
    assert worth_adding(device_only(), [worse], charged) == []


def test_no_rungs_no_change():
    assert worth_adding(device_only(), []) == []
    assert with_rungs(forked_tree(), []) == forked_tree()


def test_round_trips_of_the_types_count():
    tree = device_only()
    far = msgspec.structs.replace(tree.types, rtt_ms=(80.0, 60.0))
    tree = msgspec.structs.replace(tree, types=far, version=3)
    assert worth_adding(tree, [rung("jpeg:50", 1000, 92.0)]) == []
    near = msgspec.structs.replace(far, rtt_ms=(80.0, 20.0))
    assert worth_adding(msgspec.structs.replace(tree, types=near), [rung("jpeg:50", 1000, 92.0)]) == [0]


def test_rungs_stand_behind_the_roots_and_all_else_is_as_it_was():
    before = forked_tree()
    tree = with_rungs(before, [rung("jpeg:50", 1000, 90.0), rung("jpeg:90", 3000, 92.0)])
    assert tree.roots == (0, 1, 2, 3)
    assert [tree.nodes[i].handover.code for i in (2, 3)] == ["jpeg:50", "jpeg:90"]
    assert tree.nodes[0].children == (4, 5)
    assert tree.version == 2
    for old, new in zip((0, 1, 2, 3), (0, 1, 4, 5)):
        moved = msgspec.structs.replace(
            tree.nodes[new], id=old, parent=before.nodes[old].parent, children=before.nodes[old].children
        )
        assert moved == before.nodes[old]
    assert decode_tree(encode_tree(tree), "tree.json") == tree
    assert render_text(tree).count("by a policy only") == 2


def test_the_switch_takes_none_and_what_weighs_takes_the_one_for_the_bandwidth():
    tree = with_rungs(device_only(), [rung("jpeg:50", 1000, 90.0), rung("jpeg:90", 3000, 92.0)])
    assert [end.handover for end in tree.walk(lambda: EDGE_MBPS)] == [None]
    weighing = on_known_links(tree, MEASURED)
    taken = [weighing(None, mbps).handover for mbps in (0.05, 1.0, 8.0, 0.05)]
    assert [one and one.code for one in taken] == [None, "jpeg:50", "jpeg:90", None]
    assert set(tree_table(tree).leaf) == {0, 1, 2}


def test_a_leaf_that_only_a_policy_takes_has_no_chance():
    certain = msgspec.structs.replace(rung("jpeg:50", 1000, 90.0), leaf=leaf(0.5, 1.0, 90.0))
    with pytest.raises(FormatError, match="only a policy takes node 1"):
        with_rungs(device_only(), [certain])


@pytest.mark.parametrize(("size", "offered"), [(160, False), (224, True), ("224x160", False), ("224x192", True)])
def test_pictures_are_scaled_down_only(size, offered):
    assert ("jpeg:75@160" in SearchConfig(image_size=size).offered_codes) == offered
    assert "jpeg:75" in SearchConfig(image_size=size).offered_codes
