"""A profile that was mended predicts what was met."""

import pytest

from modeltree.errors import ConfigError
from modeltree.layers import LayerSpec
from modeltree.met import Crossed, Encoded, Met, Timed
from modeltree.profiles import load_profile
from nas.refit import errors_of, line_of, refitted


def times(*pairs):
    return [Timed(predicted_ms=predicted, ms=ms, count=9) for predicted, ms in pairs]


def met(blocks=(), rests=(), encodings=(), **rest):
    def named(pairs):
        return {f"{i:020x}": one for i, one in enumerate(times(*pairs))}

    told = {"kind": "field", "device": "pi4", "cloud": "cloud_gpu", "origin": "a test"} | rest
    return Met(blocks=named(blocks), rests=named(rests), encodings=tuple(encodings), **told)


def test_the_line_is_found_and_one_outlier_does_not_move_it():
    assert line_of(times((1, 2.5), (2, 4.5), (10, 20.5), (20, 40.5), (4, 800))) == pytest.approx((0.5, 2.0))


def test_predictions_that_lie_together_only_scale():
    assert line_of(times((10, 20), (11, 22), (12, 24))) == pytest.approx((0, 2))


def test_neither_part_of_the_line_is_below_0():
    a, b = line_of(times((1, 0.1), (10, 100)))
    assert a >= 0
    assert b > 0


def test_what_was_never_met_stays_as_it_was():
    assert line_of([]) == line_of(times((0, 3))) == (0, 1)


def test_a_mended_profile_predicts_what_was_met():
    device, cloud = load_profile("pi4"), load_profile("cloud_gpu")
    found = refitted(met(blocks=[(1, 3.5), (4, 8), (10, 17)], rests=[(0.5, 2), (2, 8)]), device, cloud)
    layer = LayerSpec(op="conv", in_channels=3, out_channels=16, out_height=32, out_width=32, kernel=(3, 3))
    assert found.device.call_ms + found.device.layer_ms(layer) == pytest.approx(2 + 1.5 * device.layer_ms(layer))
    assert found.cloud.call_ms + found.cloud.layer_ms(layer) == pytest.approx(4 * cloud.layer_ms(layer))
    assert (found.device.name, found.cloud.name) == ("pi4_met", "cloud_gpu_met")


def test_coding_has_coefficients_of_its_own():
    codings = [
        Encoded(code=code, units=units, predicted_ms=0.0, ms=ms, count=4)
        for code, units, ms in (("jpeg:75", 50_000, 5.0), ("4 bits", 10_000, 2.0), ("raw", 3000, 0.3), ("came", 9, 7.0))
    ]
    device = load_profile("pi4")
    found = refitted(met(encodings=codings, blocks=[(1, 2)]), device, load_profile("cloud_gpu")).device
    assert found.encode_ms("jpeg", 50_000) == pytest.approx(5)
    assert found.codec_ms(10_000) == pytest.approx(2)
    assert found.frame_ms(3000) == pytest.approx(0.3)


def test_crossing_takes_what_it_was_met_to_take_beside():
    crossed = Crossed(predicted_ms=20, ms=23, rtt_ms=31, extra_ms=2.5, message_bytes=180.4, count=9)
    device, cloud = load_profile("pi4"), load_profile("cloud_gpu")
    field = refitted(met(crossed=crossed), device, cloud)
    assert (field.extra_ms, field.message_bytes, field.rtt_ms) == (2.5, 180, None)
    assert refitted(met(crossed=crossed, kind="session"), device, cloud).rtt_ms == 31


def test_another_profile_than_the_trees_is_refused():
    with pytest.raises(ConfigError, match="device profile pi4, and this is phone"):
        refitted(met(), load_profile("phone"), load_profile("cloud_gpu"))


def test_errors_before_and_after_are_told():
    told = met(blocks=[(1, 2), (4, 8), (10, 20)])
    found = refitted(told, load_profile("pi4"), load_profile("cloud_gpu"))
    [(part, kinds, before, after)] = errors_of(told, found)
    assert (part, kinds) == ("device", 3)
    assert (before, after) == pytest.approx((0.5, 0))
