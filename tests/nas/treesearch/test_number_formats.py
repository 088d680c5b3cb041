"""Number formats as choices of a block: priced, found, kept through every method, and written into the tree."""

import dataclasses
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
import torch
from networks import images, made_library, made_predictor, scenario, tiny
from problems import Size, random_problem
from test_exact import brute_force

from modeltree.errors import ConfigError
from modeltree.link.scenes import load_trace
from modeltree.manifest.tree_parts import number_formats_of
from modeltree.preprocessing import PictureRule
from modeltree.profiles import FormatPrice
from modeltree.tree import decode_tree, encode_tree
from modeltree.tree.render import render_text
from nas.compression.number_formats import format_drops
from nas.config import SearchConfig
from nas.finalise.finetune import Forest, complete_paths, forest_seen
from nas.finalise.tree_builder import TreeBuilder, export_blocks
from nas.quality.measure import TOP1
from nas.search import scenario_of
from nas.treesearch.evaluator import PathOutcome
from nas.treesearch.exact import solve
from nas.treesearch.options.number_formats import KnownFormats, in_formats
from nas.treesearch.problem import HAND, ON, Plan
from nas.treesearch.search_spaces import build_search_spaces, without_endings
from nas.treesearch.space import branch_as_tree

CUTS = (0, 2, 5)


def quicker(block, rng):
    """The same with a format that takes a random share of every time, and its endings in it."""
    units = tuple(
        dataclasses.replace(unit, format_ms=(unit.pair_ms * rng.uniform(0.3, 1.2, unit.pair_ms.shape),))
        for unit in block.units
    )
    return in_formats(dataclasses.replace(block, units=units), [int(rng.integers(0, 6))])


@pytest.mark.parametrize("seed", range(4))
def test_the_best_formats_are_found_as_by_trying_all(seed):
    rng = np.random.default_rng(seed)
    problem = random_problem(seed, Size(levels=2, types=1, units=1, options=2, ends=seed > 2))
    problem = dataclasses.replace(problem, blocks=tuple(quicker(block, rng) for block in problem.blocks))
    best = solve(problem)
    assert best.outcome.reward == pytest.approx(brute_force(problem), abs=1e-9)


def where(share=0.4):
    """The usual scenario, with a device that takes a share of the time in int8."""
    usual = scenario()
    price = FormatPrice(ns_per_mac={kind: share * ns for kind, ns in usual.device.ns_per_mac.items()}, overhead_us=0.0)
    return dataclasses.replace(usual, device=msgspec.structs.replace(usual.device, number_formats={"int8-dot": price}))


def spaces(drop=0.0, share=0.4):
    library = made_library(("svd",))
    formats = KnownFormats(names=("int8-dot",), drops={(0, 2): (drop,), (2, 5): (drop,), (0, 5): (2 * drop,)})
    return build_search_spaces(
        tiny(), library, made_predictor(library), where(share), CUTS, single_root=False, max_loss=100.0,
        formats=formats,
    )  # fmt: skip


def test_a_format_that_is_quicker_and_loses_nothing_is_taken_and_a_costly_one_is_not():
    def forms(found):
        problem = found.tree.problem
        plans = solve(problem).plans
        here = [(n, plan) for n, plan in enumerate(plans) if plan is not None and plan.partition]
        return {problem.blocks[problem.shape.level[n]].ending(plan).form for n, plan in here}

    assert forms(spaces()) <= {1}
    assert forms(spaces(drop=50.0)) <= {0}
    assert forms(spaces(share=3.0)) <= {0}


def test_prices_follow_the_format_and_its_damage_the_share_of_the_units():
    (block, _), device = spaces(drop=1.0).tree.problem.blocks, where().device
    kept = (0,) * len(block.units)
    f32, int8 = (Plan(block.places, kept, form) for form in (0, 1))
    layers = [layer for i in (0, 1) for item in tiny().spec.segments[i] for layer in tiny().spec.items[item].layers]
    assert block.device_ms(f32) == pytest.approx(device.compute_ms(layers) + device.call_ms)
    assert block.device_ms(int8) == pytest.approx(device.compute_ms(layers, "int8-dot") + device.call_ms)
    half = Plan(1, kept[:1], 1)
    assert 0 < block.damage(half) == round(block.damage(int8) / len(block.units))
    assert [len(at) for at in block.endings] == [1, 2, 2]  # nothing is computed in front of the image


def test_a_branch_in_a_format_keeps_it_in_every_block_of_the_tree():
    found = spaces()
    whole = found.branches[0].problem
    plan = Plan(whole.blocks[0].places, (0,) * len(whole.blocks[0].units), 1)
    tree = branch_as_tree(found.tree.problem, whole, [plan] * len(found.branches))
    plain = without_endings(found).tree.problem
    for level, plans in ((0, tree[:2]), (1, tree[2:])):
        for one in plans:
            assert (found.tree.problem.blocks[level].ending(one).kind, plain.blocks[level].ending(one).form) == (ON, 1)
    handed = branch_as_tree(found.tree.problem, whole, [Plan(1, (0,), 1)] * len(found.branches))
    assert found.tree.problem.blocks[0].ending(handed[0]).form == 1
    assert found.tree.problem.blocks[0].ending(handed[0]).kind == HAND


@pytest.fixture(scope="module")
def grown(tmp_path_factory):
    """Type 0 goes on in int8-dot from block to block, type 1 in f32 and then int8-dot."""
    folder, found = tmp_path_factory.mktemp("formats"), spaces()
    first, second = found.tree.problem.blocks
    own = [(0,) * len(block.units) for block in (first, second)]
    plans = [Plan(first.places, own[0], 1), Plan(first.places, own[0], 0), *(Plan(second.places, own[1], 1),) * 4]
    forest = Forest(tiny(), found.tree, found.library, complete_paths(found.tree, plans))
    exported = export_blocks(tiny(), forest, list(forest.paths), folder)
    return found, plans, forest, exported, folder


def test_the_tree_says_each_blocks_format_and_names_it_apart(grown):
    found, plans, forest, exported, folder = grown

    data = SimpleNamespace(mean=(0.5,) * 3, std=(0.5,) * 3, classes=tuple("abcde"), picture=PictureRule())
    seen = dict.fromkeys(forest.paths, PathOutcome(50.0, 1.0))
    prepared = SimpleNamespace(dataset=data, outputs=(), measure=TOP1)
    tree = TreeBuilder(found, CUTS, prepared, base="tiny", trace="x").tree(plans, seen, "predicted", exported)
    again = decode_tree(encode_tree(tree), "tree.json")
    assert again == tree
    assert tree.version == 4
    assert {node.number_format for node in tree.nodes if node.level == 0} == {"f32", "int8-dot"}
    names = number_formats_of(tree)
    assert sorted(names[node.block] for node in tree.nodes if node.level == 0) == ["f32", "int8-dot"]
    assert "block 1 in int8-dot" in render_text(tree)
    assert len(list(folder.glob("*.pt2"))) == len(names)


def test_a_path_is_measured_with_its_formats_rounding(grown):
    _, _, forest, _, _ = grown
    pixels, labels = images(32)
    with torch.no_grad():
        found = {path[0].ending: logits for path, logits in forest.logits(pixels)}
    difference = (found[1] - found[0]).abs().max() / found[0].abs().max()
    assert 1e-5 < difference < 0.05
    assert len(forest_seen(forest, [(pixels, labels)])) == len(forest.paths)


def test_every_block_and_the_whole_network_have_what_they_lose():
    pixels, labels = images(40)
    with torch.no_grad():
        labels = tiny().between(0, 5)(pixels).argmax(1).numpy()
    drops = format_drops(tiny(), CUTS, ["int8", "f32"], (pixels, labels), lambda *_: None)
    assert [(start, stop) for start, stop, _ in drops] == [(0, 2), (2, 5), (0, 5)]
    assert all(lost[1] == 0.0 for _, _, lost in drops)
    assert all(0 <= lost[0] <= 30 for _, _, lost in drops)


def test_formats_that_the_profile_does_not_price_are_refused_at_once_and_unknown_ones_too():
    config = SearchConfig(formats=("f32", "int8-dot"), device="pi4")
    with pytest.raises(ConfigError, match=r"pi4 has no prices for int8-dot \(it has f32\): .*--format int8-dot"):
        scenario_of(config, load_trace(config.trace, seed=0))
    with pytest.raises(ConfigError, match="unknown number format 'int7'"):
        SearchConfig(formats=("int7",))
    with pytest.raises(ConfigError, match="judged alone"):
        SearchConfig(formats=("int8",), distillation="branch")
