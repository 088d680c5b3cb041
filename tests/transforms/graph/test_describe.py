"""Descriptions of variants: multiply-accumulates by hand, and nothing of the module is changed by describing it."""

import copy

import pytest
import torch
from small_networks import model, network
from torch import nn

from modeltree.layers import LayerSpec
from transforms import Unit, analyse, export, technique
from transforms.compose import folded_layers
from transforms.graph.describe import call_spec, module_specs
from transforms.graph.lifting import aten
from transforms.techniques.ksvd import SparseLinear


@pytest.fixture(scope="module")
def units() -> tuple[Unit, ...]:
    """A 3x3 convolution 16 -> 32 on 8x8 with a pool behind it, a linear layer 512 -> 64 on its maps, one 64 -> 10."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip
    return analyse(export(net, (16, 8, 8))).units


BY_HAND = [  # layers with weights: (kind, MACs)
    ("mobilenet", 1.0, 0, [("depthwise", 9 * 16 * 64), ("conv1x1", 16 * 32 * 64)]),
    ("mobilenet_v2", 2.0, 0, [("conv1x1", 16 * 32 * 64), ("depthwise", 9 * 32 * 64), ("conv1x1", 32 * 32 * 64)]),
    ("fire", 0.5, 0, [("conv1x1", 16 * 16 * 64), ("conv1x1", 16 * 16 * 64), ("conv3x3", 9 * 16 * 16 * 64)]),
    ("tucker2", 0.25, 0, [("conv1x1", 16 * 4 * 64), ("conv3x3", 9 * 4 * 8 * 64), ("conv1x1", 8 * 32 * 64)]),
    ("prune", 0.25, 0, [("conv3x3", 9 * 16 * 8 * 64), ("conv1x1", 8 * 32 * 16)]),
    ("svd", 0.25, 1, [("fc", 512 * 16), ("fc", 16 * 64)]),
    ("ksvd", 0.25, 1, [("fc", 512 * 16 // 4), ("fc", 16 * 64)]),
    ("gap", 1.0, 1, [("fc", 32 * 10)]),
]


@pytest.mark.parametrize(("name", "rate", "index", "wanted"), BY_HAND, ids=[case[0] for case in BY_HAND])
def test_macs_of_a_variant_are_those_counted_by_hand(units, name, rate, index, wanted):
    unit = units[index]
    layers = module_specs(technique(name).apply(unit, rate), unit.in_shape)
    assert [(layer.kind, layer.macs) for layer in layers if layer.macs] == wanted


def test_a_variant_s_layers_are_in_the_order_they_run_with_all_that_is_not_weights(units):
    conv, linear = units[0], units[1]
    pruned = module_specs(technique("prune").apply(conv, 0.25), conv.in_shape)
    assert [(layer.op, layer.elements) for layer in pruned] == [
        ("conv", 8 * 64), ("elementwise", 8 * 64), ("pool", 8 * 16), ("conv", 32 * 16),
    ]  # fmt: skip
    inverted = module_specs(technique("mobilenet_v2").apply(conv, 1.0), conv.in_shape)
    assert [layer.op for layer in inverted] == ["conv", "elementwise", "conv", "conv", "elementwise", "pool"]
    factored = module_specs(technique("svd").apply(linear, 0.25), linear.in_shape)
    assert [layer.op for layer in factored] == ["move", "fc", "fc", "elementwise"]
    pooled = module_specs(technique("gap").apply(linear, 1.0), linear.in_shape)
    assert [(layer.op, layer.elements) for layer in pooled] == [("pool", 32), ("move", 32), ("fc", 10)]


@pytest.mark.parametrize("name", ["chain", "residual", "mixed"])
def test_a_unit_as_a_module_and_as_an_item_are_described_alike(name):
    net = network(name)
    for item in net.spec.items:
        if item.unit is not None:
            unit = net.units[item.unit]
            assert module_specs(unit.module(), unit.in_shape) == list(item.layers)


@pytest.mark.parametrize("name", ["chain", "residual", "mixed"])
def test_a_part_of_the_network_is_described_as_its_items_are(name):
    net = network(name)
    last = len(net.spec.places) - 1
    got = module_specs(net.between(0, last), (3, 8, 8))
    assert sorted(map(str, got)) == sorted(str(layer) for layer in net.spec.layers(0, last) if layer.elements > 1)


def test_a_residual_link_is_an_addition_that_costs_time():
    torch.manual_seed(0)
    unit = analyse(export(nn.Conv2d(16, 16, 3, padding=1), (16, 4, 4))).units[0]
    layers = module_specs(technique("mobilenet_v2").apply(unit, 2.0), unit.in_shape)
    assert [layer.op for layer in layers] == ["conv", "elementwise", "conv", "conv", "elementwise"]
    assert layers[-1].elements == 16 * 16


def test_a_sparse_layer_counts_its_nonzero_weights():
    layer = SparseLinear(8, 4)
    layer.mask[:, :6] = 0
    (spec,) = module_specs(layer, (8,))
    assert (spec.density, spec.macs, spec.dense_macs) == (0.25, 8, 32)


def test_a_linear_layer_on_a_sequence_counts_every_row():
    (spec,) = module_specs(nn.Linear(8, 4), (5, 8))
    assert spec.macs == 5 * 8 * 4


def test_a_convolution_is_described_with_its_hyperparameters():
    (spec,) = module_specs(nn.Conv2d(4, 8, (5, 3), stride=(2, 1), padding=(2, 1), groups=2), (4, 9, 9))
    assert spec == LayerSpec(
        op="conv", in_channels=4, out_channels=8, out_height=5, out_width=9,
        kernel=(5, 3), stride=(2, 1), padding=(2, 1), groups=2,
    )  # fmt: skip
    assert spec.macs == 15 * 2 * 8 * 45
    (same,) = module_specs(nn.Conv2d(4, 8, 5, padding="same", dilation=2), (4, 9, 9))
    assert (same.out_height, same.out_width, same.padding) == (9, 9, (2, 2))


@pytest.mark.parametrize(
    ("target", "op"),
    [
        (aten.max_pool2d.default, "pool"),
        (aten.mean.dim, "pool"),
        (aten.cat.default, "move"),
        (aten.view.default, "move"),
        (aten.dropout.default, "move"),
        (aten.relu.default, "elementwise"),
        (aten.add.Tensor, "elementwise"),
    ],
)
def test_calls_without_weights_are_pools_moves_or_elementwise(target, op):
    spec = call_spec(target, (3, 4, 5))
    assert (spec.op, spec.elements, spec.macs) == (op, 60, 0)
    assert call_spec(target, (7,)).elements == 7
    assert call_spec(target, (2, 3, 4, 5)).elements == 120


def test_describing_changes_nothing(units):
    module = copy.deepcopy(model("mixed")).train()
    module.depthwise.eval()
    modes = [m.training for m in module.modules()]
    state = {key: value.clone() for key, value in module.state_dict().items()}
    first = module_specs(module, (3, 8, 8))
    assert [m.training for m in module.modules()] == modes
    assert all(not m._forward_hooks for m in module.modules())
    assert all(torch.equal(state[key], value) for key, value in module.state_dict().items()), "running statistics too"
    assert module_specs(module, (3, 8, 8)) == first
    variant = technique("prune").apply(units[0], 0.25)
    assert module_specs(variant, (16, 8, 8)) == module_specs(variant, (16, 8, 8))
    assert "forward" not in vars(variant.tail)


def test_the_layer_behind_a_pruned_one_reads_the_kept_channels(units):
    pool = LayerSpec(op="pool", in_channels=32, out_channels=32)
    conv = LayerSpec(op="conv", in_channels=32, out_channels=8, kernel=(3, 3), out_height=4, out_width=4)
    point = LayerSpec(op="conv", in_channels=8, out_channels=4, out_height=4, out_width=4)
    got = folded_layers([pool, conv, point], 32, 8)
    assert [layer.in_channels for layer in got] == [32, 8, 8]
    assert got[1].macs == 9 * 8 * 8 * 16
    linear = module_specs(units[1].module(), units[1].in_shape)
    assert sum(layer.macs for layer in folded_layers(linear, 32, 4)) == 4 * 16 * 64
    assert folded_layers([pool], 32, 8) == [pool]
