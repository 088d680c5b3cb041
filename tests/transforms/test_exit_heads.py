"""Heads of early exits: shapes, what they cost, that they export."""

import pytest
import torch
from small_networks import images, network, run

from transforms import analyse, export
from transforms.exits import ExitHead, head_layers

SHAPES = [(12, 6, 4), (64, 1, 1), (300,)]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_head_gives_logits_and_exports_with_a_dynamic_batch(shape):
    head = ExitHead(shape, 7).eval()
    x = images(5, shape)
    assert run(head, x).shape == (5, 7)
    torch.testing.assert_close(run(export(head, shape).module(), x), run(head, x))


@pytest.mark.parametrize("shape", SHAPES)
def test_the_cost_is_two_small_layers_and_a_pooling_as_exported(shape):
    head = ExitHead(shape, 7)
    layers = head_layers(head, shape)
    assert sum(layer.macs for layer in layers) == shape[0] * 128 + 128 * 7
    assert sum(layer.op == "pool" for layer in layers) == (len(shape) == 3)
    spec = analyse(export(head, shape)).spec
    assert sorted(map(repr, spec.layers(0, len(spec.segments)))) == sorted(map(repr, layers))


@pytest.mark.parametrize("name", ["chain", "residual", "dense", "inception", "mixed"])
def test_a_head_stands_at_every_cut(name):
    net = network(name)
    for place in net.spec.places[1:-1]:
        head = ExitHead(place.shape, 5).eval()
        assert run(head, run(net.between(0, place.index), images(3))).shape == (3, 5)


def test_a_map_is_averaged_whatever_its_size():
    head = ExitHead((6, 4, 4), 3).eval()
    x = images(2, (6, 4, 4))
    moved = x.flatten(2)[:, :, torch.randperm(16)].reshape(x.shape)
    torch.testing.assert_close(run(head, x), run(head, moved))
