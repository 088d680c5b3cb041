"""Costs and cuts where the batch is not in front: windows, tokens, attention that puts the sequence first."""

import pytest
import torch
from small_networks import assert_parts_make_the_whole
from torch import nn

from transforms import analyse, export

INPUT = (3, 32, 32)


class Windows(nn.Module):
    """A linear layer on 16 windows of 64 tokens each."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.window, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 8), nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n = x.shape[0]
        t = self.stem(x).reshape(n, 8, 4, 8, 4, 8).permute(0, 2, 4, 3, 5, 1).reshape(n * 16, 64, 8)
        return self.head(self.window(t).reshape(n, 1024, 8).mean(1))


class Encoder(nn.Module):
    """Layers of torch's transformer on 16 tokens of width 32; within them the sequence stands before the batch."""

    def __init__(self, depth: int = 2) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 8, 8)
        layers = (nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, norm_first=True) for _ in range(depth))
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.layers(self.stem(x).flatten(2).transpose(1, 2)).mean(1))


def weighty(module: nn.Module) -> list[tuple[int, int]]:
    """(MACs, bytes of weights) of the layers that have weights."""
    layers = (layer for item in analyse(export(module, INPUT)).spec.items for layer in item.layers)
    return [(layer.macs, layer.weight_bytes) for layer in layers if layer.weight_bytes]


def test_a_layer_on_windows_counts_every_token_once_and_its_weights_once():
    assert weighty(Windows()) == [(27 * 8 * 1024, 4 * 27 * 8), (16 * 64 * 8 * 8, 4 * 64), (80, 4 * 80)]


def test_layers_of_an_encoder_count_their_tokens_once():
    layers = weighty(Encoder())
    attention, feed_forward = [(16 * 32 * 96, 4 * 32 * 96), (16 * 32 * 32, 4 * 32 * 32)], (16 * 32 * 64, 4 * 32 * 64)
    assert layers == [(16 * 3 * 32 * 64, 4 * 3 * 32 * 64), *2 * [*attention, *2 * [feed_forward]], (320, 4 * 320)]


class Products(nn.Module):
    """Attention written out: 16 tokens, two products of 16x8 by 8x16 and of 16x16 by 16x8 on 4 heads."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 32, 8, 8), nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        t = self.stem(x).flatten(2).unflatten(1, (4, 8)).transpose(2, 3)
        scores = torch.softmax(t @ t.transpose(2, 3), -1)
        return self.head((scores @ t).transpose(2, 3).flatten(1, 2).mean(2))


@pytest.mark.parametrize(("make", "layers"), [(Encoder, 2), (Products, 1)])
def test_attention_multiplies_maps_by_each_other(make, layers):
    spec = analyse(export(make().eval(), INPUT)).spec
    products = [layer for item in spec.items for layer in item.layers if layer.op == "matmul"]
    assert sum(layer.macs for layer in products) == layers * 2 * 4 * 16 * 16 * 8
    assert sum(layer.weight_bytes for layer in products) == 0


def test_an_encoder_can_be_cut_behind_every_sum():
    module = Encoder().eval()
    network = analyse(export(module, INPUT))
    places = [place.after for place in network.spec.places]
    assert places[-5:] == ["add", "add_1", "add_2", "mean", "linear_8"]  # behind the last sum its mean is smaller
    assert_parts_make_the_whole(network, module, INPUT)


@pytest.mark.parametrize("make", [Windows, Encoder])
def test_a_program_takes_any_batch_after_it_was_analysed(make):
    program = export(make(), INPUT)
    before = [node.meta["val"].shape for node in program.graph.nodes if hasattr(node.meta.get("val"), "shape")]
    analyse(program)
    after = [node.meta["val"].shape for node in program.graph.nodes if hasattr(node.meta.get("val"), "shape")]
    assert list(map(str, after)) == list(map(str, before))
    assert any("s" in str(shape) for shape in after)
    assert program.module()(torch.zeros(5, *INPUT)).shape == (5, 10)
