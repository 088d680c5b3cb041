"""Composition: folding a pruned layer into the next one changes what it costs and nothing of what it computes."""

import functools
import itertools

import pytest
import torch
from small_networks import images, model
from small_networks import network as small_network
from torch import fx, nn

from modeltree.errors import GraphError, NotApplicable
from transforms import TECHNIQUES, Network, Unit, analyse, compose, export, technique
from transforms.compose import entry, folded_layers
from transforms.graph.describe import module_specs
from transforms.techniques.technique import Variant

INPUT = (3, 12, 12)
FIRST, SECOND, THIRD, DEPTHWISE, LAST_CONV, FC, CLASSIFIER = range(7)


class Wide(nn.Sequential):
    """Layers wide enough for every technique, a depthwise one, and linear layers on 2x2 maps."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(32, 32, 3, padding=1, stride=2), nn.ReLU(inplace=True),
            nn.Conv2d(32, 32, 3, padding=1, groups=32), nn.ReLU(),
            nn.Conv2d(32, 32, 3, bias=False), nn.ReLU(), nn.AvgPool2d(2, stride=1, padding=1),
            nn.Flatten(), nn.Dropout(), nn.Linear(32 * 2 * 2, 48), nn.ReLU(),
            nn.Linear(48, 10),
        )  # fmt: skip


@functools.cache
def network() -> Network:
    torch.manual_seed(0)
    return analyse(export(Wide(), INPUT))


@functools.cache
def features() -> dict[str, torch.Tensor]:
    interpreter = fx.Interpreter(network().graph, garbage_collect_values=False)
    with torch.no_grad():
        interpreter.run(images(16, INPUT, seed=3))
    return {node.name: value for node, value in interpreter.env.items()}


@functools.cache
def variant(name: str, index: int, rate: float | None = None) -> Variant:
    """A variant started from samples, so that its restoring map is not a permutation. Nobody may change it."""
    unit, values = network().units[index], features()
    target = network().spec.places[-1].after if name == "gap" else unit.output
    return technique(name).apply(unit, rate or TECHNIQUES[name].rates[-1], (values[unit.source], values[target]))


def macs(module: nn.Module, shape: tuple[int, ...] = INPUT) -> int:
    return sum(layer.macs for layer in module_specs(module, shape))


def pointwise_maps(module: nn.Module) -> int:
    """How many restoring maps are left."""
    return sum(isinstance(m, Variant) and isinstance(m.restore, nn.Conv2d) for m in module.modules())


def assert_same(folded: nn.Module, unfolded: nn.Module, inputs: torch.Tensor) -> None:
    for x in (inputs[:1], inputs):
        with torch.no_grad():
            wanted = unfolded(x)
            assert wanted.abs().mean() > 1e-3
            torch.testing.assert_close(folded(x), wanted, rtol=1e-3, atol=1e-4)


def composed(start: int, stop: int, variants: dict[int, nn.Module]) -> tuple[fx.GraphModule, fx.GraphModule]:
    """Folded and unfolded; checks that both compute the same."""
    folded = compose(network(), start, stop, variants)
    unfolded = network().between(start, stop, variants)
    assert_same(folded, unfolded, features()[network().spec.places[start].after])
    return folded, unfolded


END = 7

FOLDS = [
    ("conv", {FIRST: "prune"}),
    ("conv with stride", {SECOND: "prune"}),
    ("fire", {FIRST: "prune", SECOND: "fire"}),
    ("tucker", {FIRST: "prune", SECOND: "tucker2"}),
    ("mobilenet_v2 without residual link", {FIRST: "prune", SECOND: "mobilenet_v2"}),
    ("prune", {FIRST: "prune", SECOND: "prune"}),
    ("linear layer on 2x2 maps", {LAST_CONV: "prune"}),
    ("svd on 2x2 maps", {LAST_CONV: "prune", FC: "svd"}),
    ("gap", {LAST_CONV: "prune", FC: "gap"}),
]


@pytest.mark.parametrize(("consumer", "names"), FOLDS, ids=[consumer for consumer, _ in FOLDS])
def test_a_pruned_layer_folds_into(consumer, names):
    variants = {index: variant(name, index) for index, name in names.items()}
    folded, unfolded = composed(0, END, variants)
    pruned = list(names.values()).count("prune")
    assert pointwise_maps(unfolded) == pruned
    assert pointwise_maps(folded) == 0
    assert macs(folded) < macs(unfolded) < macs(network().between(0, END))


def test_folding_saves_what_the_kept_channels_say():
    pruned = variant("prune", FIRST, 0.25)  # 16 -> 4 filters
    folded, unfolded = composed(0, 2, {FIRST: pruned})
    assert macs(folded) == 144 * (9 * 3 * 4 + 9 * 4 * 32)
    assert macs(unfolded) == 144 * (9 * 3 * 4 + 4 * 16 + 9 * 16 * 32)


def test_folding_into_flattened_maps_keeps_all_pixels_of_the_kept_channels():
    folded, _ = composed(4, END, {LAST_CONV: variant("prune", LAST_CONV, 0.125)})  # 32 -> 4 filters
    assert [m.in_features for m in folded.modules() if isinstance(m, nn.Linear)] == [4 * 2 * 2, 48]


NOT_FOLDABLE = [
    ("a depthwise layer", {THIRD: "prune"}),
    ("mobilenet, which begins depthwise", {FIRST: "prune", SECOND: "mobilenet"}),
    ("ksvd, whose codes must stay sparse", {LAST_CONV: "prune", FC: "ksvd"}),
]


@pytest.mark.parametrize(("consumer", "names"), NOT_FOLDABLE, ids=[consumer for consumer, _ in NOT_FOLDABLE])
def test_a_pruned_layer_does_not_fold_into(consumer, names):
    folded, unfolded = composed(0, END, {index: variant(name, index) for index, name in names.items()})
    assert pointwise_maps(folded) == 1
    assert macs(folded) == macs(unfolded)


def test_a_pruned_layer_does_not_fold_into_a_residual_link():
    net = small_network("residual")
    first = net.units[0]  # read by the first block's convolution and by its addition
    for unit in (first, net.units[1], net.units[2]):
        pruned = technique("prune").apply(unit, 0.5)
        folded = compose(net, 0, 4, {unit.index: pruned})
        assert_same(folded, net.between(0, 4, {unit.index: pruned}), images())
        assert pointwise_maps(folded) == (0 if unit.index == 1 else 1)
    wide = analyse(export(nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1)), (3, 8, 8)))
    variants = {0: technique("prune").apply(wide.units[0], 0.5), 1: technique("mobilenet_v2").apply(wide.units[1], 2.0)}
    folded = compose(wide, 0, 2, variants)
    assert_same(folded, wide.between(0, 2, variants), images())
    assert pointwise_maps(folded) == 1, "the inverted residual's link needs all channels"


def test_nothing_folds_across_the_end_of_the_range():
    pruned = variant("prune", SECOND)
    folded, unfolded = composed(0, 2, {SECOND: pruned})
    assert pointwise_maps(folded) == 1
    assert macs(folded) == macs(unfolded)
    with torch.no_grad():
        assert folded(images(2, INPUT)).shape == (2, *network().spec.places[2].shape), "all channels cross the cut"
    rest, _ = composed(2, END, {SECOND: pruned})
    assert pointwise_maps(rest) == 0, "a variant outside the range is not plugged"
    assert macs(rest, (32, 6, 6)) == macs(network().between(2, END), (32, 6, 6))


def candidates(unit: Unit) -> list[str]:
    """Techniques that fit a unit, those that take the place of several units left aside."""
    found = []
    for name, each in TECHNIQUES.items():
        if each.reach(unit) is not None:
            continue
        try:
            each.structure(unit, each.rates[-1])
        except NotApplicable:
            continue
        found.append(name)
    return found


def random_mixture(seed: int) -> dict[int, nn.Module]:
    draw = torch.Generator().manual_seed(seed)
    variants: dict[int, nn.Module] = {}
    for unit in network().units:
        names = candidates(unit)
        choice = int(torch.randint(2 * len(names) + 2, (1,), generator=draw))
        if choice < len(names):
            variants[unit.index] = variant(names[choice], unit.index)
        elif choice < 2 * len(names) and "prune" in names:
            variants[unit.index] = variant("prune", unit.index)
    return variants


@pytest.mark.parametrize("seed", range(25))
def test_random_mixtures_compute_the_same_folded_and_unfolded(seed):
    variants = random_mixture(seed)
    folded, unfolded = composed(0, END, variants)
    assert pointwise_maps(folded) <= pointwise_maps(unfolded)
    assert macs(folded) <= macs(unfolded)
    draw = torch.Generator().manual_seed(seed)
    start = int(torch.randint(FC, (1,), generator=draw))
    stop = int(torch.randint(start + 1, END + 1, (1,), generator=draw))
    ends = stop > FC and getattr(variants.get(FC), "ends_network", False)
    composed(start, END if ends else stop, variants)


def test_the_random_mixtures_fold_and_mix():
    mixtures = [random_mixture(seed) for seed in range(25)]
    pairs = {(a in m and pointwise_maps(m[a]), b in m) for m in mixtures for a, b in itertools.pairwise(range(7))}
    assert {(1, True), (1, False)} <= pairs
    assert sum(pointwise_maps(compose(network(), 0, END, m)) for m in mixtures) < sum(
        pointwise_maps(v) for m in mixtures for v in m.values()
    )


def test_variants_and_the_base_are_used_and_not_changed():
    variants = {FIRST: variant("prune", FIRST), SECOND: variant("prune", SECOND), FC: variant("svd", FC)}
    variants[FC].train()
    before = {i: (repr(v), {k: t.clone() for k, t in v.state_dict().items()}) for i, v in variants.items()}
    base = {key: value.clone() for key, value in network().graph.state_dict().items()}
    given = dict(variants)
    folded = compose(network(), 0, END, variants)
    assert variants == given
    for index, (text, state) in before.items():
        assert repr(variants[index]) == text
        assert all(torch.equal(state[key], value) for key, value in variants[index].state_dict().items())
    assert variants[FC].training
    assert variants[FC] in list(folded.modules()), "a variant that nothing folds into is used as it is"
    variants[FC].eval()
    with torch.no_grad():
        for module in folded.modules():
            if isinstance(module, nn.Conv2d) and module.in_channels == 2:  # the folded layer is new: 16 / 8 channels
                module.weight.fill_(9.0)
    assert all(torch.equal(base[key], value) for key, value in network().graph.state_dict().items())
    assert all(torch.equal(before[SECOND][1][key], value) for key, value in variants[SECOND].state_dict().items()), (
        "the folded layer shares nothing with the variant it came from"
    )


def test_a_module_of_the_callers_own_is_never_replaced_by_folding():
    class Own(nn.Module):
        def __init__(self, unit: Unit) -> None:
            super().__init__()
            self.inner = unit.module()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * self.inner(x)

    own = Own(network().units[SECOND])
    folded, _ = composed(0, 2, {FIRST: variant("prune", FIRST), SECOND: own})
    assert own in list(folded.modules())
    assert pointwise_maps(folded) == 1


def test_a_linear_layer_along_rows_of_maps_is_not_taken_for_one_over_channels():
    torch.manual_seed(0)
    net = analyse(export(nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Linear(8, 4)), (3, 8, 8)))
    variants = {0: technique("prune").apply(net.units[0], 0.5)}
    folded = compose(net, 0, len(net.spec.places) - 1, variants)
    assert_same(folded, net.between(0, len(net.spec.places) - 1, variants), images())
    assert pointwise_maps(folded) == 1


def test_a_global_average_needs_the_range_to_reach_the_output():
    variants = {FC: variant("gap", FC), CLASSIFIER: variant("svd", CLASSIFIER)}
    folded, _ = composed(5, END, variants)
    assert variants[CLASSIFIER] not in list(folded.modules()), "the unit behind it is not needed"
    with pytest.raises(GraphError, match="part ends at place 6"):
        compose(network(), 5, 6, variants)
    composed(0, 5, variants)


def test_a_composition_exports_with_a_dynamic_batch():
    variants = {FIRST: variant("prune", FIRST), SECOND: variant("fire", SECOND), LAST_CONV: variant("prune", LAST_CONV),
                FC: variant("gap", FC)}  # fmt: skip
    module = compose(network(), 0, END, variants)
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(module, (torch.zeros(2, *INPUT),), dynamic_shapes=({0: batch},))
    assert_same(program.module(), module, images(3, INPUT))


def test_the_mixed_network_composes_in_every_range_with_all_it_allows():
    net = small_network("mixed")
    variants: dict[int, nn.Module] = {}
    for unit in net.units:
        names = [name for name in candidates(unit) if name != "gap"]
        if names:
            variants[unit.index] = technique(names[-1]).apply(unit, TECHNIQUES[names[-1]].rates[-1])
    assert len(variants) >= 4
    last = len(net.spec.places) - 1
    for start, stop in itertools.combinations(range(last + 1), 2):
        shape = net.spec.places[start].shape
        folded = compose(net, start, stop, variants)
        assert_same(folded, net.between(start, stop, variants), images(3, shape))
        assert folded(images(2, shape)).shape == (2, *net.spec.places[stop].shape)
    assert_same(compose(net, 0, last, {}), model("mixed"), images())


def test_the_entry_of_a_variant_is_the_dense_layer_that_alone_reads_its_input():
    paths = {
        name: entry(variant(name, index))
        for name, index in [("prune", SECOND), ("fire", SECOND), ("tucker2", SECOND), ("mobilenet", SECOND),
                            ("mobilenet_v2", SECOND), ("svd", FC), ("ksvd", FC), ("gap", FC)]
    }  # fmt: skip
    assert paths == {
        "prune": "core", "fire": "core.squeeze", "tucker2": "core.0", "mobilenet": None,
        "mobilenet_v2": "core.expand", "svd": "core.0", "ksvd": None, "gap": "core.2",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["prune", "fire", "tucker2"])
def test_costs_foretold_for_a_folded_consumer_are_those_it_has(name):
    pruned, consumer = variant("prune", FIRST, 0.25), variant(name, SECOND)
    unit = network().units[SECOND]
    foretold = folded_layers(module_specs(consumer, unit.in_shape), 16, 4)
    folded, _ = composed(0, 2, {FIRST: pruned, SECOND: consumer})
    pruned_alone = module_specs(pruned, INPUT)[:-1]  # without its restoring map
    assert module_specs(folded, INPUT) == pruned_alone + foretold


def test_costs_foretold_for_a_linear_layer_on_maps_count_every_pixel():
    unit = network().units[FC]
    foretold = folded_layers(module_specs(unit.module(), unit.in_shape), 32, 4)
    assert sum(layer.macs for layer in foretold) == 4 * 2 * 2 * 48
