"""A search with exits, codes and a bottleneck among its forks: what is written, and that it is what was measured."""

import json

import msgspec
import pytest
import tiny_search
import torch
from walking import blocks_of, walked

from modeltree.image_codes import image_code
from modeltree.offloading.actions import tree_table
from modeltree.tree import BitsFork, ExitFork, decode_tree
from nas.data import load_dataset
from nas.exits.pictures import sent
from nas.finalise import picture_ladder
from nas.search import search
from nas.training.base_network import with_unseen_search


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """A search in which accuracy counts for little, so that exits and few bits are worth it."""
    folder, before = tmp_path_factory.mktemp("endings"), torch.get_num_threads()
    config = with_endings(tiny_search.config(tiny_search.given(folder, "plain")))
    searched = search(config, folder / "run", cache=folder / "cache")
    torch.set_num_threads(before)
    return searched, config, folder


def with_endings(config):

    return msgspec.structs.replace(
        config,
        exits="4",
        bits=(3, 6),
        bottleneck=(0.5,),
        N=3,
        max_loss=100.0,
        finetune_steps=20,
        image_codes=("came", "jpeg:75", "webp:50"),
        measure="estimated",
    )


@pytest.fixture(scope="module")
def test_images():
    data = with_unseen_search(load_dataset("digits", image_size=16), 0)
    return data.normalise(data.test.images), data.test.labels


def trees(found):
    folder = found[0].folder
    return {path.stem: decode_tree(path.read_bytes(), path.name) for path in (folder / "methods").iterdir()}


def test_the_tree_has_forks_of_the_new_kinds(found):
    forks = [node.fork for tree in trees(found).values() for node in tree.nodes]
    assert any(isinstance(fork, ExitFork) for fork in forks)
    assert any(isinstance(fork, BitsFork) for fork in forks)
    assert found[0].tree.exits == (4,)


def test_every_leaf_is_worth_what_its_blocks_give_on_test_images(found, test_images):
    images, labels = test_images
    run = blocks_of(found[0].folder)
    for name, tree in trees(found).items():
        if name == "actions":
            continue
        share = 0.0
        for leaf in tree.leaves():
            code = "" if leaf.handover is None else leaf.handover.code
            shown = sent(images, image_code(code), tree.preprocessing)[0] if code else images
            logits, here = walked(tree, run, leaf, shown)
            right = (logits.argmax(1).numpy() == labels)[here]
            assert leaf.leaf.accuracy == pytest.approx(100 * right.mean() if len(right) else 0.0), (name, leaf.id)
            share += leaf.leaf.chance
        assert share == pytest.approx(1.0), name


def test_rungs_of_the_picture_ladder_are_measured_and_exported(found, test_images, monkeypatch, tmp_path):
    """All that are offered, paying or not."""
    searched, config, folder = found
    images, labels = test_images
    before = torch.get_num_threads()
    monkeypatch.setattr(picture_ladder, "worth_adding", lambda tree, rungs, guard: list(range(len(rungs))))
    again = search(config, tmp_path / "run", cache=folder / "cache")
    torch.set_num_threads(before)
    tree = again.tree
    rungs = [node for node in tree.nodes if not node.fork.types]
    assert [node.id for node in rungs] == list(tree.roots[-len(rungs) :])
    assert {node.handover.code for node in rungs} == {"jpeg:75", "webp:50"}
    assert len(tree.nodes) == len(searched.tree.nodes) + len(rungs)
    run = blocks_of(again.folder)
    for rung in rungs:
        shown = sent(images, image_code(rung.handover.code), tree.preprocessing)[0]
        logits, _ = walked(tree, run, rung, shown)
        right = 100 * (logits.argmax(1).numpy() == labels).mean()
        assert (rung.leaf.chance, rung.leaf.accuracy_origin) == (0.0, "measured")
        assert rung.leaf.accuracy == pytest.approx(right)


def test_the_actions_cover_every_exit_cut_and_width_and_those_exported_run(found, test_images):
    searched, config, _ = found
    images, labels = test_images
    whole = decode_tree((searched.folder / "actions.json").read_bytes(), "actions.json")
    table = tree_table(whole)
    last, exits = whole.places[-1], (*whole.exits, whole.places[-1])
    expected = {(e, place, 32) for e, place in enumerate(exits, 1)}
    expected |= {(e, 0, 8) for e in range(1, 3)}
    expected |= {(e, c, b) for e, place in enumerate(exits, 1) for c in range(1, place) for b in (*config.bits, 32)}
    assert {tuple(map(int, key)) for key in zip(table.exit, table.cut, table.bits)} == expected
    assert last == exits[-1]

    offered = trees(found)["actions"]
    run = blocks_of(searched.folder)
    few = tree_table(offered)
    assert {tuple(map(int, key)) for key in zip(few.exit, few.cut, few.bits)} <= expected
    for row, leaf in enumerate(few.leaf):
        logits, _ = walked(offered, run, offered.nodes[leaf], images)
        right = 100 * (logits.argmax(1).numpy() == labels).mean()
        assert few.accuracy[row] == pytest.approx(right, abs=0.3), leaf
    for mbps in (0.0, 0.03, 0.3, 100.0):
        assert list(offered.walk(lambda mbps=mbps: mbps))[-1].leaf is not None


def test_the_summary_says_what_exits_and_codes_are_worth(found):
    summary = json.loads((found[0].folder / "summary.json").read_text())
    assert [row["exit"] for row in summary["exits"]] == [1]
    assert all(0 <= row["rate"] <= 1 and row["head_ms"] > 0 for row in summary["exits"])
    sizes = {(row["place"], row["bits"], row["kept"]): row["bytes"] for row in summary["codes"]}
    assert all(sizes[place, 3, 0] < sizes[place, 6, 0] for place, bits, kept in sizes if (bits, kept) == (3, 0))
    pictures = {row["code"]: row for row in summary["pictures"]}
    assert pictures["jpeg:75"]["encode_ms"] > 0
    assert all(row["bytes"] > 0 and row["raw_bytes"] == 768 for row in pictures.values())
    assert "actions" in {row["method"] for row in summary["methods"]}


def test_a_search_is_the_same_again_from_what_it_kept(found, tmp_path):
    searched, config, folder = found
    before = torch.get_num_threads()
    again = search(config, tmp_path / "again", cache=folder / "cache")
    torch.set_num_threads(before)
    assert again.tree == searched.tree
    assert trees((again,)) == trees(found)
