"""Units and legal cuts: where a network may be cut, that the parts make the whole, and what everything costs."""

import pytest
import torch
from small_networks import INPUT, NETWORKS, Block, assert_parts_make_the_whole, images, model, network, of, run
from torch import fx, nn

from modeltree.errors import GraphError, NotApplicable
from transforms import technique


@pytest.mark.parametrize("name", NETWORKS)
def test_two_parts_and_all_segments_make_the_whole(name):
    assert_parts_make_the_whole(network(name), model(name))


@pytest.mark.parametrize("name", NETWORKS)
def test_every_item_lies_in_exactly_one_segment_and_runs_after_what_it_reads(name):
    spec = network(name).spec
    positions = [i for segment in spec.segments for i in segment]
    assert positions == list(range(1, len(spec.items)))
    made: set[str] = set()
    for item in spec.items:
        assert made.issuperset(item.inputs)
        made.add(item.name)
    assert [i.unit for i in spec.items if i.unit is not None] == [u.index for u in network(name).units]
    assert sum(spec.macs(s, s + 1) for s in range(len(spec.segments))) == spec.macs() > 0


def test_places_on_a_chain_stand_between_units_with_their_shapes_and_bytes():
    spec = network("chain").spec
    assert [place.index for place in spec.places] == [0, 1, 2, 3, 4]
    assert [place.shape for place in spec.places] == [(3, 8, 8), (8, 4, 4), (16, 2, 2), (12,), (5,)]
    assert [place.bytes for place in spec.places] == [192, 4 * 128, 4 * 64, 48, 20], "an image's number is one byte"
    assert [[spec.items[i].unit for i in segment] for segment in spec.segments] == [[0], [1], [2], [3]]
    assert spec.input_shape == INPUT


def test_a_residual_block_has_no_cut_inside():
    net = network("residual")
    # the input, behind the stem, behind each block's rectifier; the last block's average pool is smaller; the output
    assert [place.shape for place in net.spec.places] == [(3, 8, 8), (6, 8, 8), (6, 8, 8), (6, 1, 1), (5,)]
    assert [[net.spec.items[i].unit for i in s if net.spec.items[i].unit is not None] for s in net.spec.segments] == [
        [0], [1, 2], [3, 4], [5],
    ]  # fmt: skip


def test_concatenations_are_cut_only_where_all_branches_have_met():
    dense, inception = network("dense").spec, network("inception").spec
    assert [p.shape for p in dense.places] == [(3, 8, 8), (7, 8, 8), (11, 8, 8), (15, 8, 8), (6,), (5,)]
    assert [p.shape for p in inception.places] == [(3, 8, 8), (12, 8, 8), (12, 4, 4), (5,)]


def test_a_split_is_never_a_cut_though_everything_passes_through_it():
    net = network("mixed")
    assert [p.shape for p in net.spec.places] == [(3, 8, 8), (8, 8, 8), (8, 8, 8), (16, 8, 8), (8, 4, 4), (12,), (5,)]
    (split,) = [item for item in net.spec.items if item.name == "chunk"]
    assert split.out_bytes == 4 * 8 * 8 * 8, "both halves together, for whoever cuts between items"


def test_a_cut_behind_glue_that_shrinks_nothing_is_not_offered_twice():
    net = of(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Softmax(1), nn.Upsample(scale_factor=2),
                           nn.Conv2d(4, 2, 1)))  # fmt: skip
    assert [p.shape for p in net.spec.places] == [(3, 8, 8), (4, 8, 8), (4, 16, 16), (2, 16, 16)]
    assert "softmax" in net.spec.places[1].after


def small_vgg11() -> nn.Module:
    """VGG11 with an eighth of the channels."""
    layers: list[nn.Module] = []
    channels = 3
    for width in (8, "M", 16, "M", 32, 32, "M", 64, 64, "M", 64, 64, "M"):
        if width == "M":
            layers.append(nn.MaxPool2d(2))
        else:
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
            channels = width
    head = [nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Dropout(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)]
    return nn.Sequential(*layers, *head)


def test_macs_are_those_of_equations_4_and_5():
    spec = of(small_vgg11(), (3, 32, 32)).spec
    convolutions = [  # K K C_in C_out H W
        9 * 3 * 8 * 32 * 32, 9 * 8 * 16 * 16 * 16, 9 * 16 * 32 * 8 * 8, 9 * 32 * 32 * 8 * 8,
        9 * 32 * 64 * 4 * 4, 9 * 64 * 64 * 4 * 4, 9 * 64 * 64 * 2 * 2, 9 * 64 * 64 * 2 * 2,
    ]  # fmt: skip
    linear = [64 * 64, 64 * 64, 64 * 10]  # C_in C_out
    assert [spec.macs(s, s + 1) for s in range(len(spec.segments))] == convolutions + linear
    assert spec.macs() == sum(convolutions) + sum(linear)
    first = spec.layers(0, 1)
    assert [layer.op for layer in first] == ["conv", "elementwise", "pool"]
    assert [layer.elements for layer in first] == [8 * 1024, 8 * 1024, 8 * 256]
    assert first[0].hyperparameters == ("conv3x3", 3, 1, 1, 8)


def test_a_depthwise_convolution_costs_one_channel_per_filter():
    net = of(nn.Conv2d(6, 12, 5, padding=2, groups=6), (6, 4, 4))
    (layer,) = net.spec.layers(0, 1)
    assert (layer.kind, layer.macs) == ("depthwise", 25 * 1 * 12 * 16)


def test_a_unit_takes_along_what_follows_it_channel_by_channel_and_the_flattening_before_it():
    first, second, third, last = network("chain").units
    assert first.in_shape == first.core_in_shape == INPUT
    assert (first.core_out_shape, first.out_shape) == ((8, 8, 8), (8, 4, 4))
    assert (third.in_shape, third.core_in_shape) == ((16, 2, 2), (64,))
    assert (third.core_out_shape, third.out_shape) == ((12,), (12,))
    assert [u.classes for u in (first, second, third, last)] == [5] * 4
    assert [u.source for u in (second, third, last)] == [u.output for u in (first, second, third)]


@pytest.mark.parametrize("name", NETWORKS)
def test_a_unit_as_a_module_does_what_its_nodes_do(name):
    net = network(name)
    interpreter = fx.Interpreter(net.graph, garbage_collect_values=False)
    with torch.no_grad():
        interpreter.run(images())
        values = {node.name: value for node, value in interpreter.env.items()}
        for unit in net.units:
            got = unit.module()(values[unit.source])
            assert got.shape == (3, *unit.out_shape)
            torch.testing.assert_close(got, values[unit.output])
            assert list(unit.head.parameters()) == list(unit.tail.parameters()) == []


def test_following_is_the_unit_that_alone_and_directly_reads_the_output():
    assert [u.following for u in network("chain").units] == [1, 2, 3, None]
    # stem feeds a convolution and the addition; inside a block the second convolution reads the first one alone
    assert [u.following for u in network("residual").units] == [None, 2, None, 4, None, None]
    assert [u.following for u in network("dense").units] == [None] * 5
    assert [u.following for u in network("mixed").units] == [None, 2, 3, None, None, 6, 7, None]


def test_the_span_of_linear_layers_counts_down_to_the_output():
    assert [u.fc_span for u in network("chain").units] == [0, 0, 2, 1]
    assert [u.fc_macs for u in network("chain").units] == [0, 0, 64 * 12 + 60, 60]
    assert [u.fc_span for u in network("mixed").units] == [0] * 6 + [2, 1]
    assert [u.fc_span for u in of(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2), nn.Softmax(1)), (4,)).units
            ] == [0, 0], "a softmax follows"  # fmt: skip


@pytest.mark.parametrize("pooling", ["adaptive", "mean", "mean and keep"])
def test_global_pooling_is_declined_where_the_network_has_it_already(pooling):
    class Pooled(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 16, 3), nn.Linear(16, 5)

        def forward(self, x):
            x = torch.relu(self.conv(x))
            if pooling == "adaptive":
                return self.fc(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))
            return self.fc(x.mean((2, 3)) if pooling == "mean" else x.mean((2, 3), keepdim=True).flatten(1))

    module = Pooled()
    net = of(module)
    assert [u.fc_span for u in net.units] == [0, 1]
    with pytest.raises(NotApplicable, match=r"gets a vector of 16|1x1 maps and one linear layer"):
        technique("gap").apply(net.units[1], 1.0)
    assert_parts_make_the_whole(net, module)


def test_global_pooling_is_declined_where_the_linear_layers_are_cheaper():
    net = of(nn.Sequential(nn.Conv2d(3, 16, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 2), nn.ReLU(),
                           nn.Linear(2, 10)))  # fmt: skip
    with pytest.raises(NotApplicable, match=r"160 MACs .* 52: nothing saved"):
        technique("gap").structure(net.units[1], 1.0)


class Tokens(nn.Module):
    """Patches as (batch, tokens, channels), a class token, attention, a mixing layer: like a small ViT."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 8, 4, stride=4)
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.norm = nn.LayerNorm(8)
        self.qkv = nn.Linear(8, 24)
        self.out = nn.Linear(8, 8)
        self.up, self.down = nn.Linear(8, 16), nn.Linear(16, 8)
        self.classifier = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1)
        q, k, v = self.qkv(self.norm(x)).view(x.shape[0], 5, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
        x = x + self.out(nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape[0], 5, 8))
        x = x + self.down(nn.functional.gelu(self.up(x)))
        return self.classifier(x[:, 0])


class Mixer(nn.Module):
    """The same without attention over a permuted batch."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.token = nn.Conv2d(3, 8, 4, stride=4), nn.Parameter(torch.randn(1, 1, 8))
        self.norm, self.up, self.down = nn.LayerNorm(8), nn.Linear(8, 16), nn.Linear(16, 8)
        self.classifier = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1)
        x = x + self.down(nn.functional.gelu(self.up(self.norm(x))))
        return self.classifier(x[:, 0])


def test_linear_layers_on_sequences_are_units_that_techniques_decline():
    module = Mixer()
    net = of(module)
    assert_parts_make_the_whole(net, module)
    up = next(u for u in net.units if u.core_out_shape == (5, 16))
    assert sum(layer.macs for i in net.spec.items if i.unit == up.index for layer in i.layers) == 5 * 8 * 16
    for name in ("svd", "ksvd", "gap", "mobilenet", "prune"):
        with pytest.raises(NotApplicable, match=up.name):
            technique(name).structure(up, 1.0)


def test_attention_that_moves_the_batch_is_cut_before_and_behind():
    module = Tokens()
    net = of(module)
    assert_parts_make_the_whole(net, module)
    # the patches' convolution and what glue adds to it; tokens; behind attention; behind the mixing; the output
    assert [p.shape for p in net.spec.places][-4:] == [(5, 8), (5, 8), (8,), (5,)]
    assert len(net.units) == 6
    attention = 2 * 5 * 5 * 8  # queries by keys, and their weights by values
    assert net.spec.macs() == 16 * 3 * 8 * 4 + 5 * 8 * (24 + 8 + 16 + 16) + attention + 8 * 5


class Windows(nn.Module):
    """Layers on quarters of the image, one after the other in the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inside = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, padding=1)
        self.mixing, self.classifier = nn.Linear(64, 6), nn.Linear(24, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x)).view(-1, 4, 2, 4, 2, 4).permute(0, 2, 4, 1, 3, 5).reshape(-1, 4, 4, 4)
        x = self.mixing(torch.relu(self.inside(x)).flatten(1))
        return self.classifier(x.view(-1, 24))


def test_layers_on_windows_are_glue_that_costs_what_it_costs():
    module = Windows()
    net = of(module)
    assert_parts_make_the_whole(net, module)
    assert [p.shape for p in net.spec.places] == [(3, 8, 8), (2, 2, 4, 4, 4), (24,), (5,)]
    assert [tuple(u.op.weight.shape[:2]) for u in net.units] == [(4, 3), (5, 24)]
    assert net.spec.macs(1, 2) == 4 * (9 * 4 * 4 * 16 + 64 * 6)
    assert net.units[1].fc_span == 1


def test_glue_before_the_first_and_behind_the_last_layer_is_cut_off_correctly():
    class Framed(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 4, 1), nn.Linear(256, 5)

        def forward(self, x):
            x = torch.relu((x - 0.5) / 0.2)
            return torch.softmax(self.fc(self.conv(x).view(x.size(0), -1)), 1).log()

    module = Framed()
    net = of(module)
    assert_parts_make_the_whole(net, module)
    assert net.spec.places[-1].after == "log"
    assert net.units[-1].fc_span == 0


def test_what_several_read_belongs_to_no_unit():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.one, self.two = nn.Conv2d(3, 4, 1), nn.Linear(256, 5), nn.Linear(256, 5)

        def forward(self, x):
            x = self.conv(x)
            x = (torch.relu(x) * torch.sigmoid(x)).flatten(1)
            return self.one(x) + self.two(x)

    module = Shared()
    net = of(module)
    assert_parts_make_the_whole(net, module)
    assert [unit.nodes for unit in net.units] == [("conv2d",), ("linear",), ("linear_1",)]
    assert [place.after for place in net.spec.places] == ["x", "flatten", "add"]
    assert [(u.following, u.fc_span) for u in net.units] == [(None, 0)] * 3


def test_a_linear_layer_on_sequences_at_the_end_is_not_a_classifier_to_replace():
    (unit,) = of(nn.Sequential(nn.Flatten(2), nn.Linear(64, 4), nn.ReLU())).units
    assert (unit.fc_span, unit.classes) == (0, 12)


def test_a_network_that_gives_maps_or_one_number_is_welcome():
    maps = of(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU()))
    assert (maps.spec.places[-1].shape, maps.units[0].classes) == ((4, 8, 8), 256)
    number = of(nn.Sequential(nn.Flatten(), nn.Linear(192, 1), nn.Flatten(0)))
    assert (number.spec.places[-1].shape, number.units[0].classes) == ((), 1)


def test_a_network_without_weights_is_refused():
    with pytest.raises(GraphError, match="no convolution and no linear layer"):
        of(nn.Sequential(nn.ReLU(), nn.Flatten()))


def test_a_part_that_stops_before_a_variant_that_ends_the_network_is_refused():
    net = network("chain")
    variant = technique("gap").apply(net.units[2], 1.0)
    with pytest.raises(GraphError, match=r"part ends at place 3: take the part up to place 4"):
        net.between(0, 3, {2: variant})
    assert run(net.between(2, 4, {2: variant}), torch.randn(2, 16, 2, 2)).shape == (2, 5)


def test_parts_share_the_base_networks_weights_and_leave_it_as_it_is():
    net = network("residual")
    names = [node.name for node in net.graph.graph.nodes]
    own = {p.data_ptr() for p in net.graph.parameters()}
    part = net.between(1, 3)
    assert {p.data_ptr() for p in part.parameters()} < own
    assert not part.training
    assert [node.name for node in net.graph.graph.nodes] == names


def test_a_plugged_module_keeps_its_mode():
    net = network("chain")
    variant = technique("svd").apply(net.units[2], 0.25).train()
    net.between(0, 4, {2: variant})
    assert all(m.training for m in (variant, variant.core, *variant.core))


def test_a_block_is_a_function_of_its_input_even_where_it_rectifies_in_place():
    class InPlace(Block):
        def forward(self, x):
            return nn.functional.relu_(x + self.two(nn.functional.relu_(self.one(x))))

    module = nn.Sequential(InPlace(3), nn.ReLU(inplace=True), InPlace(3))
    net = of(module)
    value = images()
    for start in range(len(net.spec.segments)):
        before = value.clone()
        after = run(net.between(start, start + 1), value)
        assert torch.equal(value, before), "cached features must survive"
        value = after
