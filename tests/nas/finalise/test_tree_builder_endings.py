"""From plans with exits, codes and a bottleneck to a tree: chances, accuracies and blocks agree with one another."""

import types

import numpy as np
import pytest
import torch
from networks import CLASSES, images, made_library, made_predictor, scenario, tiny
from walking import blocks_of, walked

from modeltree.preprocessing import PictureRule
from modeltree.tree import BitsFork, ExitFork, decode_tree, encode_tree
from nas.exits.catalogue import KnownCode, KnownEndings, KnownExit
from nas.exits.thresholds import LOST_BY_CONFIDENCE, largest_threshold
from nas.finalise.finetune import Forest, complete_paths, forest_seen, set_thresholds_
from nas.finalise.tree_builder import TreeBuilder, export_blocks
from nas.quality.measure import TOP1
from nas.treesearch.methods import reward_of
from nas.treesearch.problem import CONFIDENT, EXIT, Plan
from nas.treesearch.search_spaces import SearchSpaces, build_search_spaces
from runtime.selection.early_exit import entropies_nats
from transforms.bottleneck import bottleneck, bottleneck_layers
from transforms.exits import ExitHead, head_layers

CUTS = (0, 2, 5)
PIXELS, LABELS = images(160)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def endings():
    """An untrained exit at the cut, sure of about half the images; codes of 3 bits in front of it, plain and narrow."""
    shape = tiny().spec.places[2].shape
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        head, coder = ExitHead(shape, CLASSES).eval(), bottleneck(tiny().spec.places[1].shape, 4)
    wide = tiny().spec.places[1].shape
    encoder, decoder = bottleneck_layers(*coder, wide)
    with torch.no_grad():
        middle = float(np.median(entropies_nats(head(tiny().between(0, 2)(PIXELS)).numpy())))
    layers = head_layers(head, shape)
    return KnownEndings(
        exits=(KnownExit(exit=1, place=2, drop=0.0, entropy=middle, rate=0.5, loss=0.0, layers=layers),),
        codes=(
            KnownCode(place=1, bits=3, kept=0, shape=wide, bytes=900.0, drop=0.0),
            KnownCode(place=1, bits=3, kept=4, shape=(4, *wide[1:]), bytes=90.0, drop=0.0, encoder=encoder,
                      decoder=decoder),
        ),
        heads={2: head},
        coders={(1, 4): coder},
    )  # fmt: skip


@pytest.fixture(scope="module")
def spaces(endings) -> SearchSpaces:
    library = made_library(("svd",))
    return build_search_spaces(
        tiny(), library, made_predictor(library), scenario(), CUTS, single_root=False, max_loss=100.0, endings=endings
    )


@pytest.fixture(scope="module")
def grown(spaces, tmp_path_factory):
    """Type 0: leave when sure, else to the end or out at once. Type 1: hand over codes, or by the exit."""
    folder = tmp_path_factory.mktemp("blocks")
    first, second = spaces.tree.problem.blocks
    names = {(e.kind, e.bits, e.kept): i for i, e in enumerate(first.endings[1])}
    sure = [e.kind for e in first.endings[first.places]].index(CONFIDENT)
    out = [e.kind for e in second.endings[0]].index(EXIT)
    kept = (0,) * first.device_units(first.places)
    whole = Plan(second.places, (0,) * len(second.units))
    plans = [
        Plan(first.places, kept, sure), Plan(1, (0,) * first.device_units(1), names["hand", 3, 4]),
        whole, Plan(0, (), out), None, None,
    ]  # fmt: skip
    forest = Forest(tiny(), spaces.tree, made_library(("svd",)), complete_paths(spaces.tree, plans))
    seen = forest_seen(forest, [(PIXELS, LABELS)])
    exported = export_blocks(tiny(), forest, list(forest.paths), folder / "blocks")
    data = types.SimpleNamespace(mean=(0.5,) * 3, std=(0.2,) * 3, classes=tuple("abcde"), picture=PictureRule())
    header = types.SimpleNamespace(dataset=data, outputs=(), measure=TOP1)
    tree = TreeBuilder(spaces, CUTS, header, base="tiny", trace="none").tree(plans, seen, "measured", exported)
    return tree, plans, seen, folder, forest


def test_the_tree_forks_as_planned(grown):
    tree, *_ = grown
    forks = {type(node.fork) for node in tree.nodes}
    assert forks >= {ExitFork, BitsFork}
    sure = tree.confident(0)
    assert sure is not None
    assert (sure.fork.exit, sure.fork.types) == (1, ())
    assert sure.fork.entropy == pytest.approx(1.6, abs=0.1)  # about as unsure as five classes allow: it is untrained
    by_type = [node for node in tree.nodes if isinstance(node.fork, ExitFork) and node.fork.types]
    assert [node.fork.types for node in by_type] == [(1,)]
    (hands,) = [node for node in tree.nodes if node.handover is not None]
    assert (hands.handover.bits, hands.handover.bytes, hands.handover.shape[0]) == (3, 90, 4)
    assert tree.exits == (2,)


def test_leaves_are_worth_what_their_blocks_give_and_taken_as_often_as_samples_leave(grown):
    tree, _, _, folder, _ = grown
    run, shares = blocks_of(folder), {}
    for leaf in tree.leaves():
        logits, here = walked(tree, run, leaf, PIXELS)
        shares[leaf.id] = here.mean()
        assert leaf.leaf.accuracy == pytest.approx(100 * (logits.argmax(1).numpy() == LABELS)[here].mean())
    sure = tree.confident(0)
    assert 0.1 < shares[sure.id] < 0.9
    assert sure.leaf.chance == pytest.approx(0.5 * shares[sure.id])
    others = [leaf for leaf in tree.leaves() if leaf.parent == 0 and leaf.id != sure.id]
    assert [leaf.leaf.chance for leaf in others] == pytest.approx([0.25 * (1 - shares[sure.id])] * len(others))


def test_the_tree_is_worth_the_mean_of_its_leaves(grown, spaces):
    tree, plans, seen, _, _ = grown
    outcome = reward_of(spaces.tree.problem, plans, seen)
    leaves = [node.leaf for node in tree.leaves()]
    assert outcome.accuracy == pytest.approx(sum(leaf.chance * leaf.accuracy for leaf in leaves))
    assert outcome.latency_ms == pytest.approx(sum(leaf.chance * leaf.latency_ms for leaf in leaves))
    energy = spaces.scenario.device.energy
    by_hand = sum(
        node.leaf.chance * (
            energy.compute_w * sum(one.device_ms for one in tree.path(node.id))
            + energy.transmit_w * node.transfer_ms
            + energy.compute_w * sum(
                tree.confident(one.id).device_ms for one in tree.path(node.id)
                if tree.confident(one.id) is not None and tree.confident(one.id).id != node.id
            )
        )
        for node in tree.leaves()
    )  # fmt: skip
    assert outcome.energy_mj == pytest.approx(by_hand)


def test_a_head_asked_in_vain_costs_those_that_go_on(grown):
    tree, *_ = grown
    sure = tree.confident(0)
    onward = [leaf for leaf in tree.leaves() if leaf.parent == 0 and leaf.id != sure.id]
    for leaf in onward:
        path = sum(node.device_ms for node in tree.path(leaf.id))
        assert leaf.leaf.latency_ms == pytest.approx(path + sure.device_ms)


def test_the_tree_reads_back_as_it_was_written(grown):
    tree, *_ = grown
    assert decode_tree(encode_tree(tree), "tree.json") == tree


def test_calibration_takes_the_largest_threshold_that_costs_little(grown):
    *_, forest = grown
    set_thresholds_(forest, PIXELS, LABELS)
    (path,) = forest.thresholds
    with torch.no_grad():
        logits = dict(forest.logits(PIXELS))
    onward = max((p for p in forest.paths if p[:1] == path and p != path), key=lambda p: forest.paths[p])
    right = [logits[p].argmax(1).numpy() == LABELS for p in (path, onward)]
    by_hand = largest_threshold(entropies_nats(logits[path].numpy()), *right, max_loss=LOST_BY_CONFIDENCE)
    assert forest.thresholds[path] == by_hand.entropy
