"""Networks that cannot be deployed are refused at once, by the name of their layer; all others pass."""

import importlib.util
import warnings

import pytest
import torch
from torch import nn

from modeltree.errors import GraphError, Remark
from nas.bases import build
from nas.config import SearchConfig
from nas.training.base_network import prepare
from nas.training.deployability import check_program
from transforms import export

SHAPE = (3, 8, 8)


class Named(nn.Module):
    """A stem, the layer in question as `inner.odd`, and a head."""

    def __init__(self, odd: nn.Module) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 10)
        self.inner = nn.ModuleDict({"odd": odd})

    def forward(self, x):
        return self.head(self.inner["odd"](self.stem(x)).mean((2, 3)))


class AlwaysDropping(nn.Module):
    def forward(self, x):
        return nn.functional.dropout(x, 0.5)


class Noisy(nn.Module):
    def forward(self, x):
        return x + torch.randn_like(x)


class OverTheBatch(nn.Module):
    def forward(self, x):
        return x - x.mean(0, keepdim=True)


def checked(odd):
    check_program(export(Named(odd), SHAPE))


@pytest.mark.parametrize(("odd", "operator"), [(AlwaysDropping(), "dropout"), (Noisy(), "randn_like")])
def test_a_layer_that_draws_random_numbers_is_named(odd, operator):
    with pytest.raises(GraphError, match=rf"^layer inner\.odd: {operator} draws random numbers.*self\.training"):
        checked(odd)


def test_a_layer_that_normalises_by_its_batch_is_named():
    torch.manual_seed(0)
    with pytest.raises(GraphError, match=r"^layer inner\.odd: batch_norm answers an image differently beside others"):
        checked(nn.BatchNorm2d(4, track_running_stats=False))


def test_a_network_that_mixes_the_images_of_a_batch_is_refused():
    with pytest.raises(GraphError, match="differently beside others"):
        checked(OverTheBatch())


@pytest.mark.parametrize(
    "odd", [nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Dropout2d(0.5), nn.Hardswish(), nn.Identity()], ids=str
)
def test_layers_that_rest_at_inference_pass_without_a_word(odd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        checked(odd)


def test_attention_passes_where_it_drops_nothing():
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(4, 2, dropout=0.1, batch_first=True)

        def forward(self, x):
            tokens = x.flatten(2).transpose(1, 2)
            return x + self.attention(tokens, tokens, tokens, need_weights=False)[0].mean(1)[:, :, None, None]

    checked(Tokens())


def test_a_softmax_at_the_end_is_pointed_out_and_one_inside_is_not():
    with pytest.warns(Remark, match="ends in a softmax"):
        check_program(export(nn.Sequential(Named(nn.ReLU()), nn.Softmax(1)), SHAPE))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        checked(nn.Softmax(1))


@pytest.mark.skipif(not importlib.util.find_spec("tvm"), reason="needs the extra `compile`: pip install -e .[compile]")
def test_an_operator_that_the_compiler_does_not_take_is_refused():
    class Sorting(nn.Module):
        def forward(self, x):
            return torch.linalg.qr(x)[1]

    with pytest.raises(GraphError, match="qr"):
        checked(Sorting())


NETWORK = """
from torch import nn


class Dropping(nn.Module):
    def forward(self, x):
        return nn.functional.dropout(x, 0.5)


def made():
    return nn.Sequential(nn.Conv2d(3, 4, 3), Dropping(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))
"""


def test_a_search_refuses_it_before_anything_is_trained(tmp_path):
    (tmp_path / "net.py").write_text(NETWORK)
    base = f"{tmp_path / 'net.py'}:made"
    assert isinstance(build(base, num_classes=10, image_size=8), nn.Module)
    told = []
    with pytest.raises(GraphError, match=r"^layer 1: dropout draws"):
        prepare(SearchConfig(base=base, image_size=8), tmp_path / "run", tmp_path / "cache", lambda *a: told.append(a))
    assert not told
    assert not (tmp_path / "cache" / "bases").exists()
