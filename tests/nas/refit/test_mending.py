"""A profile that was mended predicts what was met."""

import msgspec
import pytest

from modeltree.errors import ConfigError
from modeltree.layers import LayerSpec
from modeltree.met import Crossed, Encoded, Met, Timed
from modeltree.profiles import load_profile
from nas.refit import errors_of, refitted


def times(*pairs):
    return [Timed(predicted_ms=predicted, ms=ms, count=9) for predicted, ms in pairs]


def met(blocks=(), rests=(), encodings=(), **rest):
    def named(pairs):
        return {f"{i:020x}": one for i, one in enumerate(times(*pairs))}

    told = {"kind": "field", "device": "pi4", "cloud": "cloud_gpu", "origin": "a test"} | rest
    return Met(blocks=named(blocks), rests=named(rests), encodings=tuple(encodings), **told)


LAYERS = {
    "wide": LayerSpec(op="conv", in_channels=32, out_channels=64, out_height=32, out_width=32, kernel=(3, 3)),
    "thin": LayerSpec(op="conv", in_channels=64, out_channels=64, out_height=32, out_width=32),
    "deep": LayerSpec(
        op="conv", in_channels=64, out_channels=64, out_height=32, out_width=32, kernel=(3, 3), groups=64
    ),
    "last": LayerSpec(op="fc", in_channels=4096, out_channels=512),
}
DEARER = {"conv3x3": 0.4, "conv1x1": 1.2, "depthwise": 0.3, "fc": 0.9}


def made(profile, names, call_ms=0.1):
    """A block of some layers on a machine whose kinds are dearer or cheaper than the profile says."""
    layers = tuple(LAYERS[name] for name in names)
    ms = call_ms + sum(DEARER[layer.kind] * profile.layer_ms(layer) for layer in layers)
    return Timed(predicted_ms=profile.compute_ms(layers), ms=ms, count=50, layers=layers)


def told(profile, *chosen):
    return msgspec.structs.replace(
        met(), blocks={f"{i:020x}": made(profile, names) for i, names in enumerate(chosen)}, device=profile.name
    )


CHOSEN = (["wide"], ["thin"], ["deep", "thin"], ["wide", "deep"], ["last"], ["wide", "thin", "last"], ["thin", "thin"],
          ["deep"], ["wide", "wide"], ["last", "thin"])  # fmt: skip


def test_kinds_of_operators_are_told_apart_and_other_blocks_are_foreseen():
    device, cloud = load_profile("phone"), load_profile("cloud_gpu")
    found = refitted(told(device, *CHOSEN), device, cloud)
    for kind, times in DEARER.items():
        assert found.device.ns_per_mac[kind] == pytest.approx(times * device.ns_per_mac[kind], rel=0.1)
    another = told(device, ["deep", "last"], ["wide", "deep", "thin"])
    [device_row] = errors_of(another, found, same=False)
    assert device_row.before > 0.5
    assert device_row.after < 0.05


def test_without_layers_a_profile_is_scaled_as_a_whole_and_is_off_where_kinds_differ():
    device, cloud = load_profile("phone"), load_profile("cloud_gpu")
    known = told(device, *CHOSEN)
    blind = {key: msgspec.structs.replace(one, layers=()) for key, one in known.blocks.items()}
    rows = [
        errors_of(one, refitted(one, device, cloud))[0] for one in (known, msgspec.structs.replace(known, blocks=blind))
    ]
    assert rows[0].after < 0.05 < 0.2 < rows[1].after
    assert rows[0].left_out < rows[1].left_out


def test_a_mended_profile_predicts_what_was_met():
    device, cloud = load_profile("pi4"), load_profile("cloud_gpu")
    found = refitted(met(blocks=[(1, 1.5), (4, 6), (10, 15)], rests=[(1, 4), (2, 8)]), device, cloud)
    layer = LayerSpec(op="conv", in_channels=64, out_channels=64, out_height=32, out_width=32, kernel=(3, 3))
    assert found.device.call_ms + found.device.layer_ms(layer) == pytest.approx(1.5 * device.layer_ms(layer), rel=0.02)
    assert found.cloud.call_ms + found.cloud.layer_ms(layer) == pytest.approx(4 * cloud.layer_ms(layer), rel=0.3)
    assert (found.device.name, found.cloud.name) == ("pi4_met", "cloud_gpu_met")


def test_what_a_mended_profile_says_is_what_its_fit_says():
    device, cloud = load_profile("pi3_ncnn_1t"), load_profile("cloud_gpu")
    known = told(device, *CHOSEN)
    found = refitted(known, device, cloud)
    for one in known.blocks.values():
        said = found.device.call_ms + found.device.compute_ms(one.layers)
        assert said == pytest.approx(found.device_fit.ms(one))


def test_a_server_that_decodes_is_told_apart_from_what_it_computes():
    device, cloud = load_profile("pi4"), load_profile("cloud_cpu")
    layers = (LAYERS["wide"],)
    compute_ms = cloud.compute_ms(layers)
    plain = Timed(predicted_ms=compute_ms, ms=compute_ms, count=9, layers=layers)
    coded = Timed(predicted_ms=compute_ms + 6.0, ms=compute_ms + 3.0, count=9, layers=layers)
    rests = {f"{i:020x} {code}": one for i, (code, one) in enumerate((("32 bits", plain), ("8 bits", coded)) * 6)}
    found = refitted(msgspec.structs.replace(met(cloud="cloud_cpu"), rests=rests), device, cloud)
    assert found.cloud.codec_ms(1000) == pytest.approx(0.5 * cloud.codec_ms(1000), rel=0.1)
    assert found.cloud.call_ms + found.cloud.layer_ms(layers[0]) == pytest.approx(compute_ms, rel=0.1)


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
    [row] = errors_of(told, found)
    assert (row.part, row.kinds, row.before) == ("device", 3, 0.5)
    assert row.after < 0.02


def test_parts_that_take_next_to_nothing_are_not_counted():
    told = met(blocks=[(0.01, 0.19)], encodings=[Encoded(code="raw", units=3000, predicted_ms=0, ms=0.1, count=4)])
    assert errors_of(told, refitted(told, load_profile("pi4"), load_profile("cloud_gpu"))) == []


def test_single_hand_overs_tell_what_is_left_of_the_crossings_error():
    crossed = Crossed(
        predicted_ms=20, ms=23, rtt_ms=31, extra_ms=2.5, message_bytes=0, count=9, error=0.13, mended_error=0.02
    )  # fmt: skip
    told = met(crossed=crossed)
    [row] = errors_of(told, refitted(told, load_profile("pi4"), load_profile("cloud_gpu")))
    assert (row.part, row.before, row.after) == ("transfer", 0.13, 0.02)


def test_crossings_elsewhere_are_off_by_what_they_take_beside_as_well():
    crossed = Crossed(
        predicted_ms=20, ms=25, rtt_ms=31, extra_ms=2.5, message_bytes=0, count=9, error=0.13, mended_error=0.02
    )  # fmt: skip
    here, there = met(crossed=crossed), met(crossed=msgspec.structs.replace(crossed, extra_ms=4.5))
    found = refitted(here, load_profile("pi4"), load_profile("cloud_gpu"))
    [row] = errors_of(there, found, same=False)
    assert row.after == pytest.approx(0.02 + 2.0 / 25)
