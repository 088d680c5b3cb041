"""Lifting: the graph computes what the model computes, and what cannot be lifted is refused by name."""

import copy

import pytest
import torch
from small_networks import INPUT, NETWORKS, images, model, settled
from torch import nn

from modeltree.errors import GraphError
from transforms.graph.lifting import aten, export, lift


class Calls(nn.Module):
    """A model from a function and the layers it uses."""

    def __init__(self, function, **layers: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x):
        return self.function(self, x)


def lifted(module: nn.Module, shape=INPUT):
    torch.manual_seed(0)
    return lift(export(module, shape))


def assert_same(module: nn.Module, shape=INPUT):
    """The graph gives the model's outputs, for batches other than the one it was exported with."""
    graph = lifted(module, shape)
    for count in (1, 4):
        x = images(count, shape)
        with torch.no_grad():
            torch.testing.assert_close(graph(x), module.eval()(x), rtol=1e-4, atol=1e-5)
    return graph


def targets(graph) -> list:
    return [node.target for node in graph.graph.nodes if node.op == "call_function"]


@pytest.mark.parametrize("name", NETWORKS)
def test_the_graph_computes_what_the_model_computes(name):
    assert_same(model(name))


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(3, 6, 3),
        nn.Conv2d(3, 6, 3, bias=False),
        nn.Conv2d(3, 6, 3, padding="same"),
        nn.Conv2d(3, 6, 4, padding="same", dilation=2),
        nn.Conv2d(3, 6, 3, padding="valid"),
        nn.Conv2d(3, 6, 3, groups=3, padding=1, stride=2),
        nn.Conv2d(3, 6, (3, 1), dilation=(2, 1), padding=(1, 0), bias=False),
        nn.Conv2d(3, 6, 3, padding=1, padding_mode="reflect"),
    ],
    ids=str,
)
@pytest.mark.parametrize("norm", [nn.BatchNorm2d(6), nn.BatchNorm2d(6, affine=False, eps=0.1), None], ids=str)
def test_convolutions_come_back_as_modules_with_their_batch_norm_folded_in(conv, norm):
    module = settled(nn.Sequential(conv, norm) if norm else nn.Sequential(conv))
    graph = assert_same(module)
    assert aten.batch_norm.default not in targets(graph)
    (found,) = [m for m in graph.modules() if isinstance(m, nn.Conv2d)]
    assert (found.kernel_size, found.stride, found.dilation, found.groups) == (
        conv.kernel_size, conv.stride, conv.dilation, conv.groups,
    )  # fmt: skip
    assert (found.bias is not None) == (conv.bias is not None or norm is not None)
    assert len(list(graph.parameters())) == 1 + (found.bias is not None), "nothing is kept twice"


def test_a_batch_norm_is_folded_by_its_formula():
    conv, norm = nn.Conv2d(1, 1, 1, bias=False), nn.BatchNorm2d(1, eps=0.0)
    with torch.no_grad():
        conv.weight.fill_(3.0), norm.weight.fill_(5.0), norm.bias.fill_(7.0)
        norm.running_mean.fill_(2.0), norm.running_var.fill_(4.0)
    graph = lifted(nn.Sequential(conv, norm), (1, 2, 2))
    (found,) = [m for m in graph.modules() if isinstance(m, nn.Conv2d)]
    assert found.weight.item() == pytest.approx(3 * 5 / 2)  # w * scale / sqrt(var)
    assert found.bias.item() == pytest.approx(7 - 2 * 5 / 2)  # shift - mean * scale / sqrt(var)


def test_a_batch_norm_whose_convolution_others_read_stays():
    module = Calls(
        lambda m, x: m.norm(m.conv(x)) + m.conv(x) + (y := m.conv(x)) + m.norm(y),
        conv=nn.Conv2d(3, 4, 1), norm=nn.BatchNorm2d(4),
    )  # fmt: skip
    graph = assert_same(settled(module))
    assert targets(graph).count(aten.batch_norm.default) == 1, "two of the three convolutions are read once"


def test_a_batch_norm_without_running_statistics_stays():
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, track_running_stats=False))
    assert aten.batch_norm.default in targets(assert_same(module))


def test_two_batch_norms_in_a_row_fold_both():
    graph = assert_same(settled(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm2d(4))))
    assert targets(graph) == []


@pytest.mark.parametrize(
    "reshape",
    [
        lambda _, x: x.view(x.size(0), -1),
        lambda _, x: x.reshape(x.shape[0], 4 * 8 * 8),
        lambda _, x: x.view(-1, 4 * 8 * 8),
        lambda _, x: torch.flatten(x, 1),
    ],
)
def test_a_reshape_reads_the_batch_size_from_its_own_input(reshape):
    module = Calls(lambda m, x: m.fc(reshape(m, torch.relu(m.conv(x)))), conv=nn.Conv2d(3, 4, 1), fc=nn.Linear(256, 5))
    graph = assert_same(module)
    sizes = [node for node in graph.graph.nodes if node.target is aten.sym_size.int]
    assert all(node.args[0].target is not None and node.args[0].op != "placeholder" for node in sizes)


def test_the_input_s_batch_size_used_far_down_is_read_near_by():
    def forward(m, x):
        count = x.size(0)
        return m.fc(torch.relu(m.conv(x)).view(count, -1))

    graph = assert_same(Calls(forward, conv=nn.Conv2d(3, 4, 1), fc=nn.Linear(256, 5)))
    (size,) = [node for node in graph.graph.nodes if node.target is aten.sym_size.int]
    assert size.args[0].name.startswith("relu")


def test_calls_in_place_leave_the_callers_tensor_alone():
    module = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(3, 4, 1), nn.Flatten(), nn.Hardtanh(inplace=True))
    graph = lifted(module)
    assert not [t for t in targets(graph) if t._schema.is_mutable]
    x = images()
    before = x.clone()
    with torch.no_grad():
        got = graph(x)
        assert torch.equal(x, before)
        torch.testing.assert_close(got, module.eval()(x))
    assert not torch.equal(x, before), "the model itself does change its input"


def _changes_a_slice(m, x):
    y = m.conv(x)
    y[:, 0] *= 2
    return y.mean((2, 3))


def _changes_under_a_view(m, x):
    y = m.conv(x)
    flat = y.flatten(1)
    y.relu_()
    return flat + y.flatten(1)


@pytest.mark.parametrize("forward", [_changes_a_slice, _changes_under_a_view])
def test_a_view_changed_in_place_is_refused_and_not_lost(forward):
    with pytest.raises(GraphError, match=r"in place"):
        lifted(Calls(forward, conv=nn.Conv2d(3, 4, 1)))


def _written_mask(m, x):
    mask = x.new_zeros((8, 8))
    for number, rows in enumerate((slice(0, 3), slice(3, 8))):
        mask[rows, 1:] = number + 1
    return m.conv(x) + torch.where(mask == 2, x.new_full((8, 8), 0.5), torch.ones_like(mask))


def test_a_tensor_of_the_inputs_kind_alone_is_a_constant_that_may_be_written_in_parts():
    graph = assert_same(Calls(_written_mask, conv=nn.Conv2d(3, 4, 1)))
    assert targets(graph) == [aten.add.Tensor]


def test_a_constant_that_is_changed_after_it_was_read_is_refused():
    def forward(m, x):
        mask = torch.zeros(8, 8)
        y = m.conv(x) + mask
        mask.fill_(1.0)
        return y * mask

    with pytest.raises(GraphError, match="in place after it was read"):
        lifted(Calls(forward, conv=nn.Conv2d(3, 4, 1)))


def test_what_does_not_depend_on_the_input_is_computed_once():
    module = Calls(
        lambda m, x: m.conv(x) * torch.arange(8.0) + torch.eye(8).sum(0) * m.conv.bias.sum(),
        conv=nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 1)),
    )
    graph = assert_same(module)
    assert len([m for m in graph.modules() if isinstance(m, nn.Conv2d)]) == 1, "weights behind a parametrisation too"
    assert set(targets(graph)) == {aten.mul.Tensor, aten.add.Tensor}


def test_weights_used_twice_make_two_layers():
    graph = assert_same(Calls(lambda m, x: m.conv(torch.relu(m.conv(x))), conv=nn.Conv2d(3, 3, 3, padding=1)))
    assert len([m for m in graph.modules() if isinstance(m, nn.Conv2d)]) == 2


def test_weights_that_depend_on_the_image_stay_a_call():
    module = Calls(lambda m, x: nn.functional.linear(m.conv(x).mean((2, 3)), m.fc.weight * m.fc.bias.exp()[:, None]),
                   conv=nn.Conv2d(3, 4, 1), fc=nn.Linear(4, 5))  # fmt: skip
    assert_same(module)
    gated = Calls(lambda m, x: nn.functional.linear(m.conv(x), x.mean(0)[0]), conv=nn.Conv2d(3, 4, 1))
    with pytest.raises(GraphError, match=r"mean has shape \(3, 8, 8\), not a multiple of the batch"):
        lifted(gated)


def test_the_model_keeps_its_weights_its_modes_and_its_outputs():
    module = settled(copy.deepcopy(model("chain"))).train()
    module[2].eval(), module[7].eval()
    modes = [m.training for m in module.modules()]
    state = {key: value.clone() for key, value in module.state_dict().items()}
    graph = lifted(module)
    with torch.no_grad():
        for value in (*graph.parameters(), *graph.buffers()):
            value.zero_()
    assert [m.training for m in module.modules()] == modes
    assert all(torch.equal(value, state[key]) for key, value in module.state_dict().items())
    assert not graph.training


def test_parameters_outside_layers_are_copied_too():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale, self.conv = nn.Parameter(torch.ones(3, 1, 1)), nn.Conv2d(3, 4, 1)
            self.register_buffer("shift", torch.ones(3, 1, 1))

        def forward(self, x):
            return self.conv(x * self.scale + self.shift)

    module = Scaled()
    graph = lifted(module)
    with torch.no_grad():
        for value in (*graph.parameters(), *graph.buffers()):
            value.zero_()
    assert len(list(graph.parameters())) == 3
    assert all(bool((value != 0).all()) for value in module.state_dict().values())


def test_modes_survive_a_network_that_does_not_export():
    module = Calls(lambda m, x: m.conv(x) if x.sum() > 0 else x, conv=nn.Conv2d(3, 3, 1)).train()
    with pytest.raises(GraphError, match="decides by the values of a tensor"):
        export(module, INPUT)
    assert module.training
    assert module.conv.training


def test_lifting_draws_no_random_numbers():
    program = export(model("chain"), INPUT)
    torch.manual_seed(3)
    wanted = torch.rand(1)
    torch.manual_seed(3)
    lift(program)
    assert torch.equal(torch.rand(1), wanted)


@pytest.mark.parametrize(
    ("forward", "message"),
    [
        (lambda m, x: m.fc(m.conv(x).reshape(2, -1)), r"shape \(2, 256\), not a multiple of the batch size"),
        (lambda m, x: m.conv(x) + m.conv(x).new_ones(2, 4, 1, 1), r"shape \(2, 4, 8, 8\), not a multiple"),
        (lambda m, x: (m.conv(x), x), "more than one tensor"),
        (lambda m, x: {"a": m.conv(x), "b": x}, "more than one tensor"),
        (lambda m, x: m.conv(x).transpose(0, 1), "first dimension must be the batch"),
        (lambda m, x: m.conv(x).mean(), r"mean has shape \(\), not a multiple"),
        (lambda m, x: m.conv(x).view(-1, 8), "first dimension must be the batch"),
    ],
)
def test_a_network_that_cannot_be_cut_per_image_is_refused(forward, message):
    with pytest.raises(GraphError, match=message):
        lifted(Calls(forward, conv=nn.Conv2d(3, 4, 1), fc=nn.Linear(256, 5)))


def test_a_network_with_two_inputs_is_refused():
    class Two(nn.Module):
        def forward(self, x, y):
            return x + y

    with pytest.raises(GraphError, match=r"torch\.export cannot take"):
        export(Two(), INPUT)
    batch = torch.export.Dim.AUTO
    program = torch.export.export(Two(), (images(2), images(2)), dynamic_shapes=({0: batch}, {0: batch}))
    with pytest.raises(GraphError, match="2 inputs: it must have exactly one"):
        lift(program)


def test_one_output_in_a_tuple_is_as_good_as_one_output():
    module = Calls(lambda m, x: (m.conv(x),), conv=nn.Conv2d(3, 4, 1))
    with torch.no_grad():
        torch.testing.assert_close(lifted(module)(images()), module(images())[0])


def test_a_view_does_not_mind_how_maps_lie_in_memory():
    class Views(nn.Module):
        def __init__(self):
            super().__init__()
            self.maps, self.last = nn.Conv2d(3, 4, 3), nn.Linear(4 * 36, 5)

        def forward(self, x):
            return self.last(self.maps(x).view(x.shape[0], -1))

    network, x = Views(), torch.rand(2, 3, 8, 8)
    graph = lift(export(network, (3, 8, 8)))
    torch.testing.assert_close(graph(x.contiguous(memory_format=torch.channels_last)), network(x))
