"""Learned bottlenecks: shapes, what they cost, that they export, and the start that principal components give."""

import math

import pytest
import torch
from small_networks import images, run

from modeltree.errors import ConfigError
from transforms import analyse, export
from transforms.bottleneck import bottleneck, bottleneck_layers, start_

SHAPE = (12, 6, 4)


def test_fewer_channels_cross_and_as_many_come_back():
    encoder, decoder = bottleneck(SHAPE, 3)
    x = images(5, SHAPE)
    assert run(encoder, x).shape == (5, 3, 6, 4)
    assert run(decoder, run(encoder, x)).shape == x.shape


@pytest.mark.parametrize("shape", [SHAPE, (3, 1, 1), (8, 32, 32)])
def test_the_cost_is_that_of_the_exported_parts(shape):
    encoder, decoder = bottleneck(shape, 2)
    channels, area = shape[0], math.prod(shape[1:])
    front, back = bottleneck_layers(encoder, decoder, shape)
    assert sum(layer.macs for layer in front) == channels * 2 * area
    assert sum(layer.macs for layer in back) == (9 * 2 * channels + channels * channels) * area
    for part, layers, entering in ((encoder, front, shape), (decoder, back, (2, *shape[1:]))):
        spec = analyse(export(part, entering)).spec
        assert spec.layers(0, len(spec.segments)) == list(layers)


def test_both_export_with_a_dynamic_batch():
    encoder, decoder = bottleneck(SHAPE, 3)
    x = images(7, SHAPE)
    code = run(export(encoder, SHAPE).module(), x)
    torch.testing.assert_close(code, run(encoder, x))
    torch.testing.assert_close(run(export(decoder, (3, 6, 4)).module(), code), run(decoder, code))


def test_features_of_as_many_dimensions_as_are_kept_come_back_whole():
    x = torch.einsum("ck,nkhw->nchw", images(1, (12, 3), seed=1)[0].abs(), images(9, (3, 6, 4)).abs())
    encoder, decoder = bottleneck(SHAPE, 3)
    start_(encoder, decoder, x)
    torch.testing.assert_close(run(decoder, run(encoder, x)), x, rtol=1e-4, atol=1e-4)


def test_the_start_is_the_best_linear_one():
    x = images(40, SHAPE).abs()  # no less than 0, as behind a ReLU, or the decoder's ReLU would take more away
    encoder, decoder = bottleneck(SHAPE, 3)
    start_(encoder, decoder, x)
    decoder.relu = torch.nn.Identity()
    left = run(decoder, run(encoder, x)) - x
    pixels = x.transpose(0, 1).flatten(1).double()
    values = torch.linalg.eigvalsh(torch.cov(pixels, correction=0))
    assert float(left.square().sum() / pixels.shape[1]) == pytest.approx(float(values[:-3].sum()), rel=1e-4)


@pytest.mark.parametrize("kept", [0, 13, -1])
def test_more_channels_than_there_are_or_none_are_refused(kept):
    with pytest.raises(ConfigError, match=r"within 1\.\.12"):
        bottleneck(SHAPE, kept)


def test_what_has_no_channels_has_no_bottleneck():
    with pytest.raises(ConfigError, match=r"shape \(64,\).*earlier cut"):
        bottleneck((64,), 3)
