"""MACs by hand [Wang 2020, eqs. 4-5], and the kinds that profiles know."""

import msgspec
import pytest

from modeltree.layers import KINDS, LayerSpec


def conv(kernel, *, groups=1, in_channels=64, out_channels=128, **rest):
    return LayerSpec(
        op="conv", in_channels=in_channels, out_channels=out_channels, out_height=16, out_width=8, kernel=kernel,
        groups=groups, **rest,
    )  # fmt: skip


def test_macs_of_a_convolution():
    """3 * 3 * 64 * 128 * 16 * 8."""
    assert conv((3, 3)).macs == 9_437_184
    assert conv((3, 3)).elements == 128 * 16 * 8


def test_macs_of_a_grouped_convolution_read_their_group_only():
    assert conv((3, 3), groups=4).macs == 9_437_184 // 4
    assert conv((3, 3), groups=64, out_channels=64).macs == 9 * 64 * 128


def test_macs_of_a_linear_layer():
    assert LayerSpec(op="fc", in_channels=4096, out_channels=10).macs == 40_960


@pytest.mark.parametrize("op", ["pool", "elementwise", "move"])
def test_what_has_no_weights_has_no_macs(op):
    layer = LayerSpec(op=op, in_channels=8, out_channels=8, out_height=4, out_width=4, kernel=(2, 2))
    assert (layer.macs, layer.dense_macs, layer.elements, layer.kind) == (0, 0, 128, op)


def test_zeros_count_in_dense_macs_alone():
    layer = LayerSpec(op="fc", in_channels=100, out_channels=10, density=0.25)
    assert (layer.macs, layer.dense_macs) == (250, 1000)


@pytest.mark.parametrize(
    ("layer", "kind"),
    [
        (conv((1, 1)), "conv1x1"),
        (conv((3, 3)), "conv3x3"),
        (conv((5, 5)), "conv5x5"),
        (conv((7, 7)), "conv7x7"),
        (conv((11, 11)), "conv7x7"),  # no larger kind is known
        (conv((1, 7)), "conv3x3"),  # seven taps are nearest to nine
        (conv((3, 3), groups=64, out_channels=64), "depthwise"),
        (conv((3, 3), groups=4), "conv3x3"),
        (LayerSpec(op="fc", in_channels=1, out_channels=1), "fc"),
    ],
)
def test_kinds(layer, kind):
    assert layer.kind == kind
    assert kind in KINDS


def test_a_controller_reads_type_kernel_stride_padding_and_channels():
    assert conv((3, 3), stride=(2, 2), padding=(1, 1)).hyperparameters == ("conv3x3", 3, 2, 1, 128)


def test_a_layer_comes_back_from_json_and_an_unknown_key_is_refused():
    layer = conv((3, 3), density=0.5)
    data = msgspec.json.encode(layer)
    assert msgspec.json.decode(data, type=LayerSpec) == layer
    with pytest.raises(msgspec.ValidationError, match="colour"):
        msgspec.json.decode(data[:-1] + b',"colour":1}', type=LayerSpec)
