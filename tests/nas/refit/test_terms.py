"""A profile's terms add up to what it predicts, and multiply one by one."""

import msgspec
import pytest

from modeltree.layers import LayerSpec
from modeltree.profiles import FormatPrice, load_profile
from nas.refit.terms import TERMS, multiplied, terms_ms

PLAIN = LayerSpec(op="conv", in_channels=8, out_channels=16, out_height=10, out_width=10, kernel=(3, 3))
STRIDED = msgspec.structs.replace(PLAIN, stride=(2, 2))
OTHERS = (
    LayerSpec(op="conv", in_channels=16, out_channels=16, out_height=10, out_width=10, kernel=(3, 3), groups=16),
    LayerSpec(op="fc", in_channels=1600, out_channels=10),
    LayerSpec(op="pool", in_channels=16, out_channels=16, out_height=5, out_width=5),
)


def priced():
    """Every price a power of two, so that each term can be told in what comes out."""
    profile = load_profile("pi4")
    return msgspec.structs.replace(
        profile, ns_per_mac=dict.fromkeys(profile.ns_per_mac, 1.0), strided_ratio=4.0, ns_per_weight_byte=2.0,
        ns_per_map_byte=0.5, overhead_us=8.0, ns_per_element=dict.fromkeys(profile.ns_per_element, 16.0),
        codec_ns_per_number=3.0, call_ms=1.0,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["pi4", "phone", "pi3_ncnn_1t", "cloud_cpu"])
def test_terms_add_up_to_what_the_profile_predicts(name):
    profile, layers = load_profile(name), (PLAIN, STRIDED, *OTHERS)
    assert sum(terms_ms(profile, layers).values()) == pytest.approx(profile.compute_ms(layers))


def test_a_layer_is_told_apart_into_macs_weights_maps_and_its_own_cost():
    macs, weights = 9 * 8 * 16 * 100, 4 * 9 * 8 * 16
    maps = 4 * (8 * 100 + 16 * 100)
    assert terms_ms(priced(), [PLAIN]) == pytest.approx(
        {"conv3x3": macs * 1e-6, "weights": 2 * weights * 1e-6, "maps": maps * 0.5e-6, "layers": 8e-3}
    )
    assert terms_ms(priced(), [STRIDED])["strided"] == pytest.approx(4 * macs * 1e-6)


def test_every_term_is_multiplied_by_its_own():
    times = dict(zip(TERMS, range(2, 2 + len(TERMS)), strict=True))
    mended = multiplied(priced(), times, 7.0)
    for layer in (PLAIN, STRIDED, *OTHERS):
        wanted = {term: times[term] * ms for term, ms in terms_ms(priced(), [layer]).items()}
        assert terms_ms(mended, [layer]) == pytest.approx(wanted)
    assert mended.call_ms == 7
    assert mended.codec_ns_per_number == 3 * times["coding"]


def test_other_number_formats_are_multiplied_alike():
    profile = priced()
    price = FormatPrice(ns_per_mac=dict.fromkeys(profile.ns_per_mac, 0.25), overhead_us=1.0)
    times = dict.fromkeys(TERMS, 3.0)
    mended = multiplied(msgspec.structs.replace(profile, number_formats={"int8": price}), times, 0.0)
    assert mended.layer_ms(PLAIN, "int8") == pytest.approx(0.25 * 3 * PLAIN.dense_macs * 1e-6 + 3e-3)
