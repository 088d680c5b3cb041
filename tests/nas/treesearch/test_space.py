"""From a network and its library to a search problem, in times by hand."""

import dataclasses
import itertools
import json
from importlib import resources

import msgspec
import numpy as np
import pytest
import torch
from networks import made_library, made_predictor, scenario, tiny
from problems import is_feasible

from modeltree.errors import ConfigError
from modeltree.layers import LayerSpec
from modeltree.network import Item, NetworkSpec, Place
from modeltree.slicing import slice_blocks
from nas.compression.library import Choice
from nas.exits.catalogue import KnownEndings, KnownPicture
from nas.treesearch.evaluator import Evaluator
from nas.treesearch.exact import solve
from nas.treesearch.problem import ABSORBED, Plan
from nas.treesearch.space import branch_as_tree, build_space
from transforms import compose, technique
from transforms.graph.describe import module_specs

LAST = 5


def built(cuts, *, names=("svd", "gap", "mobilenet", "prune"), levels=None, where=None, **rest):
    library = made_library(names)
    return build_space(tiny(), library, made_predictor(library), where or scenario(), cuts, levels=levels, **rest)


def chain(costs):
    """A chain of layers with so many MACs each."""
    items = [Item(name="0", inputs=(), layers=(), out_shape=(1,))]
    for i, cost in enumerate(costs, 1):
        layers = (LayerSpec(op="fc", in_channels=cost, out_channels=1),)
        items.append(Item(name=str(i), inputs=(str(i - 1),), layers=layers, out_shape=(1,)))
    places = tuple(Place(index=i, after=item.name, shape=(1,), bytes=4) for i, item in enumerate(items))
    segments = tuple((i + 1,) for i in range(len(costs)))
    return NetworkSpec(input_shape=(1,), items=tuple(items), places=places, segments=segments)


@pytest.mark.parametrize("blocks", [1, 2, 3, 5, 8])
def test_the_heaviest_block_is_as_light_as_can_be(blocks):
    costs = [100, 700, 300, 300, 200, 900, 50, 50]
    cuts = slice_blocks(chain(costs), blocks)
    assert (cuts[0], cuts[-1], len(cuts)) == (0, len(costs), blocks + 1)

    def heaviest(inner):
        return max(sum(costs[a:b]) for a, b in itertools.pairwise((0, *inner, len(costs))))

    best = min(heaviest(inner) for inner in itertools.combinations(range(1, len(costs)), blocks - 1))
    # every layer's one output counts beside its MACs, which moves no optimum here
    assert heaviest(cuts[1:-1]) == best


@pytest.mark.parametrize("blocks", [0, 9, 99])
def test_more_blocks_than_segments_are_refused(blocks):
    with pytest.raises(ConfigError, match=f"N is {blocks} but the network can be cut into 1 to 8 blocks"):
        slice_blocks(chain([1] * 8), blocks)


PARTS = (
    {"conv3x3": 16 * 16 * 16 * 3 * 9, "elementwise": 16 * 16 * 16},
    {"conv3x3": 16 * 16 * 32 * 16 * 9, "elementwise": 16 * 16 * 32, "pool": 8 * 8 * 32},
    {"conv3x3": 8 * 8 * 32 * 32 * 9, "elementwise": 8 * 8 * 32, "pool": 4 * 4 * 32},
    {"fc": 512 * 48, "move": 512, "elementwise": 48},
    {"fc": 48 * 5},
)
"""MACs, and numbers that layers without weights make, of `networks.Tiny` from place to place."""
CROSSING_BYTES = (3 * 16 * 16, 4 * 16 * 16 * 16, 4 * 8 * 8 * 32, 4 * 4 * 4 * 32, 4 * 48)


def by_hand_ms(profile, parts):
    """What parts take by the coefficients in a profile's file; one layer with weights a part."""
    costs = json.loads((resources.files("modeltree.profiles") / f"{profile}.json").read_text())
    ns_each = costs["ns_per_mac"] | costs["ns_per_element"]
    ns = sum(ns_each[kind] * count for part in parts for kind, count in part.items())
    return (ns + 1000 * costs["overhead_us"] * len(parts)) / 1e6


def test_a_problem_mirrors_its_network():
    space = built((0, 2, LAST))
    first, second = space.problem.blocks
    assert (first.start, first.places, second.start, second.places) == (0, 2, 2, 3)
    assert [t.unit for t in first.units] == [0, 1]
    assert [t.unit for t in second.units] == [2, 3, 4]
    for block in (first, second):
        for place in range(block.places):
            at, raw = block.start + place, block.endings[place][0]
            assert raw.cloud_ms == pytest.approx(by_hand_ms("cloud_gpu", PARTS[at:]))
            for k, bytes_per_ms in enumerate((125.0, 2500.0)):  # 1 and 20 Mbit/s; the round trip is 2 ms
                assert raw.transfer_ms[k] == pytest.approx(2.0 + CROSSING_BYTES[at] / bytes_per_ms)
    kept = Evaluator(space.problem).tree([Plan(b.places, (0,) * len(b.units)) for b in (first, first, *[second] * 4)])
    here_ms = by_hand_ms("phone", PARTS)
    assert kept.outcome.latency_ms == pytest.approx(here_ms)
    assert kept.outcome.accuracy == 90.0
    assert kept.outcome.reward == pytest.approx(100 * (90 - 50) / 50 + 300 * (500 - here_ms) / 500)


def plans_of(block, rng, count):
    """Random feasible plans."""
    found = []
    for _ in range(count):
        place, options = int(rng.integers(block.places + 1)), []
        for mask in block.feasible(place):
            options.append(int(rng.choice(np.flatnonzero(mask[options[-1] if options else 0]))))
        found.append(Plan(place, tuple(options)))
    return found


@pytest.mark.parametrize("device", ["phone", "pi4"])
@pytest.mark.parametrize("cuts", [(0, 2, LAST), (0, 1, 3, LAST), (0, 1, 2, 3, 4, LAST)])
def test_a_branch_costs_the_same_in_the_tree(cuts, device):
    where = scenario(device=device)
    tree = built(cuts, where=where)
    whole = built(cuts, levels=(0, LAST), where=where)
    rng = np.random.default_rng(0)
    plans = plans_of(whole.problem.blocks[0], rng, 40)
    for slow, fast in zip(plans[::2], plans[1::2]):
        as_tree = branch_as_tree(tree.problem, whole.problem, [slow, fast])
        assert is_feasible(tree.problem, as_tree)
        assert tree.variants(list(path_of(tree.problem, as_tree, 0))) == whole.variants([slow])
        alone = Evaluator(whole.problem)
        together = Evaluator(tree.problem)
        for k, plan in enumerate((slow, fast)):
            path = tuple(path_of(tree.problem, as_tree, k))
            if path[-1].partition < tree.problem.blocks[len(path) - 1].places:
                ends = (k,)
                assert together.branch(ends, path) == pytest.approx(alone.branch(ends, (plan,)))
            else:
                assert together.branch((0,), path) == pytest.approx(alone.branch((0,), (plan,)))


def path_of(problem, plans, root):
    """Plans from a root down, always along the child with the root's own fork."""
    node = root
    while True:
        yield plans[node]
        children = problem.shape.children[node]
        if not children or plans[children[root]] is None:
            return
        node = children[root]


def test_the_exact_optimum_of_whole_branches_is_never_above_the_trees():
    whole = built((0, 2, LAST), levels=(0, LAST))
    tree = built((0, 2, LAST))
    assert solve(tree.problem).outcome.reward >= solve(whole.problem).outcome.reward - 1e-9


def test_a_device_time_is_that_of_the_composed_network():
    """Pruned through: every composition costs what its layers, counted one by one on the folded modules, cost."""
    library = made_library(("svd", "gap", "prune", "mobilenet"))
    where = scenario()
    space = build_space(tiny(), library, made_predictor(library), where, (0, LAST))
    block, pruned = space.problem.blocks[0], 0
    for plan in plans_of(block, np.random.default_rng(1), 40):
        choices = space.variants([plan])
        if plan.partition == 0 or any(c.technique == ABSORBED for c in choices.values()):
            continue
        modules = {u: technique(c.technique).structure(tiny().units[u], c.rate).eval() for u, c in choices.items()}
        part = compose(tiny(), 0, plan.partition, modules)
        assert block.device_ms(plan) == pytest.approx(weighted_ms(part, where.device), rel=1e-9), (plan, choices)
        pruned += any(choice.technique == "prune" for choice in choices.values())
    assert pruned > 10


def weighted_ms(module, profile):
    """Time of the layers with weights of a module; the phone charges nothing for others."""
    seen = []

    def note(layer, inputs, output):
        seen.append((layer, tuple(inputs[0].shape[1:])))

    handles = [
        m.register_forward_hook(note) for m in module.modules() if isinstance(m, (torch.nn.Conv2d, torch.nn.Linear))
    ]
    with torch.no_grad():
        module(torch.zeros(1, 3, 16, 16))
    for handle in handles:
        handle.remove()
    return sum(profile.compute_ms(module_specs(layer, shape)) for layer, shape in seen)


def test_a_pruned_neighbour_makes_the_next_layer_cheaper():
    space = built((0, LAST))
    first, second = space.problem.blocks[0].units[:2]
    half = space.choices[0].index(Choice("prune", 0.5))
    device = scenario().device
    # conv2d_1 reads 8 of 16 channels, and conv2d's restoring map, 8 -> 16 channels over 16x16 pixels, is saved
    folded = msgspec.structs.replace(second.layer, in_channels=8)
    restoring = LayerSpec(op="conv", in_channels=8, out_channels=16, out_height=16, out_width=16)
    assert second.pair_ms[half, 0] == pytest.approx(device.layer_ms(folded) - device.layer_ms(restoring))
    assert second.pair_ms[0, 0] == pytest.approx(device.layer_ms(second.layer))
    assert first.labels[half] == "prune@0.5"


def test_nothing_folds_over_a_cut():
    space = built((0, 1, LAST))
    pair_ms = space.problem.blocks[1].units[0].pair_ms
    assert pair_ms.shape[0] == 1
    whole = built((0, 1, LAST), levels=(0, LAST)).problem.blocks[0].units[1].pair_ms
    assert whole.shape[0] > 1
    assert np.ptp(whole, axis=0).max() == 0.0


def test_f3_is_offered_only_where_its_span_fits_into_the_block():
    assert Choice("gap", 1.0) in built((0, 2, LAST)).choices[3]
    assert Choice("gap", 1.0) not in built((0, 4, LAST)).choices[3]
    assert Choice("gap", 1.0) not in built((0, 4, LAST), levels=(0, LAST)).choices[3]


def test_f3_makes_the_units_behind_it_free_and_is_complete_only_with_them():
    space = built((0, 2, LAST))
    block = space.problem.blocks[1]
    gap, absorbed = space.choices[3].index(Choice("gap", 1.0)), space.choices[4].index(Choice(ABSORBED, 1.0))
    behind = block.units[2].pair_ms
    assert behind[gap, absorbed] == 0.0
    assert [np.isfinite(behind[gap, o]) for o in range(behind.shape[1]) if o != absorbed] == [False] * (absorbed)
    assert [np.isfinite(behind[o, absorbed]) for o in range(behind.shape[0]) if o != gap] == [False] * (len(behind) - 1)
    assert np.isinf(block.device_ms(Plan(2, (0, gap))))
    assert np.isfinite(block.device_ms(Plan(3, (0, gap, absorbed))))


def test_options_that_save_no_time_are_dropped_and_say_why():
    """MobileNet, on a device on which depthwise layers are dear."""
    where = scenario()
    phone = where.device
    dear = msgspec.structs.replace(
        phone, ns_per_mac=phone.ns_per_mac | {"depthwise": 1000 * phone.ns_per_mac["conv3x3"]}
    )
    space = built((0, LAST), names=("mobilenet",), where=dataclasses.replace(where, device=dear))
    assert all(len(choices) == 1 for choices in space.choices.values())
    assert set(space.dropped) == {(u, Choice("mobilenet", 1.0)) for u in (0, 1, 2)}
    assert set(space.dropped.values()) == {"saves no time on this device"}
    kept = built((0, LAST), names=("mobilenet",))
    assert any(len(choices) == 2 for choices in kept.choices.values())


def test_an_option_that_another_beats_in_both_is_dropped_and_names_it():
    library = made_library(("svd",))
    worse, better = (3, Choice("svd", 0.25)), (3, Choice("svd", 0.125))
    library.records[better] = msgspec.structs.replace(library.records[better], logit_error=0.001)
    space = build_space(tiny(), library, made_predictor(library), scenario(), (0, LAST))
    assert space.dropped[worse] == "svd@0.125 is as fast and as accurate"
    assert worse[1] not in space.choices[3]
    assert better[1] in space.choices[3]


def test_damage_adds_up_and_absorbed_units_do_none():
    space = built((0, 2, LAST))
    block = space.problem.blocks[1]
    gap, absorbed = space.choices[3].index(Choice("gap", 1.0)), space.choices[4].index(Choice(ABSORBED, 1.0))
    half = space.choices[2].index(Choice("prune", 0.5))
    # relative output errors of 0.02 / rate, in thousandths
    assert block.damage(Plan(3, (half, gap, absorbed))) == 40 + 20 + 0


def test_one_root_serves_all_types_by_their_chances():
    space = built((0, 2, LAST), single_root=True)
    problem = space.problem
    assert problem.shape.fork_types == (((0, 1),), ((0,), (1,)))
    block = problem.blocks[0]
    plain = block.endings[0][0]
    assert problem.transfer_ms((0, 1), plain) == pytest.approx(plain.transfer_ms.mean())


def test_the_picture_may_be_sent_as_a_file_at_its_bytes_and_what_coding_takes_on_both_ends():
    where = scenario()
    ways = (
        KnownPicture(code="jpeg:75", bytes=700.4, pixels=64.0, drop=0.0),
        KnownPicture(code="webp:50", bytes=400.0, pixels=64.0, drop=1.0),
        KnownPicture(code="came", bytes=900.0, pixels=256.0, drop=0.0),
    )
    block = built((0, 2, LAST), where=where, endings=KnownEndings(pictures=ways)).problem.blocks[0]
    raw, jpeg, webp, came = block.endings[0]
    assert [len(at) for at in block.endings[1:]] == [1] * block.places
    assert (raw.picture, jpeg.picture, webp.picture, came.picture) == ("", "jpeg:75", "webp:50", "came")
    assert jpeg.device_ms == pytest.approx(where.device.jpeg_ns_per_pixel * 64e-6)
    assert webp.device_ms == pytest.approx(5 * jpeg.device_ms)
    assert came.device_ms == 0
    assert came.cloud_ms - raw.cloud_ms == pytest.approx(where.cloud.jpeg_ns_per_pixel * 256e-6)
    assert jpeg.transfer_ms.tolist() == where.transfer_ms(700).tolist()
    assert webp.damage > jpeg.damage == 0
