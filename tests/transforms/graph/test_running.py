"""Running a network part by part: every value is what torch computes there."""

import pytest
import torch
from torch import nn

from modeltree.errors import GraphError
from transforms import analyse, export, node_values, values_at


class _Forked(nn.Module):
    """Two branches that join: a legal cut before them and behind them, none within."""

    def __init__(self):
        super().__init__()
        self.stem, self.left, self.right = (nn.Conv2d(a, b, 3, padding=1) for a, b in ((3, 4), (4, 4), (4, 4)))
        self.head = nn.Linear(4, 5)

    def forward(self, x):
        """(n, 3, 8, 8) to (n, 5)."""
        x = self.stem(x).relu()
        return self.head((self.left(x) + self.right(x)).relu().mean((2, 3)))


@pytest.fixture(scope="module")
def forked():
    torch.manual_seed(0)
    model = _Forked().eval()
    images = torch.randn(6, 3, 8, 8)
    with torch.no_grad():
        stem = model.stem(images).relu()
        joined = (model.left(stem) + model.right(stem)).relu()
        by_hand = {"stem": stem, "pooled": joined.mean((2, 3)), "logits": model(images)}
    return analyse(export(model, (3, 8, 8))), images, by_hand


def place_of(network, shape):
    (index,) = [place.index for place in network.spec.places if place.shape == shape]
    return index


def test_what_crosses_at_a_place_is_what_the_module_computes_there(forked):
    network, images, by_hand = forked
    stem, pooled, last = place_of(network, (4, 8, 8)), place_of(network, (4,)), place_of(network, (5,))
    values = values_at(network, images, [last, 0, stem, pooled])
    assert list(values) == [0, stem, pooled, last]
    torch.testing.assert_close(values[0], images, rtol=0, atol=0)
    for place, name in ((stem, "stem"), (pooled, "pooled"), (last, "logits")):
        torch.testing.assert_close(values[place], by_hand[name])
    assert not values[last].requires_grad


def test_a_part_begins_with_whatever_crosses_at_its_start(forked):
    network, _, by_hand = forked
    stem, last = place_of(network, (4, 8, 8)), len(network.spec.segments)
    values = values_at(network, by_hand["stem"] + 1, [stem, last], start=stem)
    torch.testing.assert_close(values[stem], by_hand["stem"] + 1, rtol=0, atol=0)
    torch.testing.assert_close(values[last], network.between(stem, last)(by_hand["stem"] + 1))
    assert not torch.allclose(values[last], by_hand["logits"])


def test_nothing_behind_the_last_place_is_computed(forked):
    network, images, by_hand = forked
    called = []
    handles = [
        module.register_forward_hook(lambda module, *_: called.append(type(module).__name__))
        for module in network.graph.modules()
        if isinstance(module, (nn.Conv2d, nn.Linear))
    ]
    values_at(network, images, [place_of(network, (4, 8, 8))])
    assert called == ["Conv2d"]
    values_at(network, by_hand["pooled"], [len(network.spec.segments)], start=place_of(network, (4,)))
    assert called == ["Conv2d", "Linear"]
    for handle in handles:
        handle.remove()


def test_every_node_of_the_graph_can_be_asked_for(forked):
    network, images, by_hand = forked
    values = node_values(network, images)
    assert {unit.source for unit in network.units} | {unit.output for unit in network.units} <= set(values)
    assert all(len(value) == 6 for value in values.values())
    torch.testing.assert_close(values[network.units[0].output], by_hand["stem"])
    assert list(node_values(network, images, [network.units[0].output])) == [network.units[0].output]


def test_places_out_of_reach_are_refused(forked):
    network, images, _ = forked
    with pytest.raises(GraphError, match=r"places are \[0\]: they must lie from 1"):
        values_at(network, images, [0], start=1)
    with pytest.raises(GraphError, match="must lie from 0"):
        values_at(network, images, [99])
