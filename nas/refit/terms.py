"""A profile's prediction split into the terms that it adds up, and a profile whose terms are multiplied."""

from collections.abc import Iterable, Mapping

import msgspec

from modeltree.layers import LayerSpec
from modeltree.profiles import ELEMENT_KINDS, MAC_KINDS, DeviceProfile, FormatPrice
from modeltree.units import ms_from_ns, ms_from_us

STRIDED, WEIGHTS, MAPS, LAYERS, CODING, WHOLE = "strided", "weights", "maps", "layers", "coding", "whole"
"""Terms beside the kinds of operators: 3x3 MACs with stride or groups, bytes of weights and of maps, the cost of a
layer, coding; and all of what is not known layer by layer."""

TERMS = (*MAC_KINDS, STRIDED, *ELEMENT_KINDS, WEIGHTS, MAPS, LAYERS, CODING, WHOLE)


def terms_ms(profile: DeviceProfile, layers: Iterable[LayerSpec]) -> dict[str, float]:
    """Term -> ms; they add up to `profile.compute_ms(layers)`. Terms of nothing are not there."""
    found: dict[str, float] = {}
    for layer in layers:
        if layer.kind in ELEMENT_KINDS:
            parts = {layer.kind: ms_from_ns(profile.ns_per_element[layer.kind] * layer.elements)}
        else:
            strided = layer.kind == "conv3x3" and not layer.plain
            work_ns = (profile.strided_ratio if strided else 1.0) * profile.ns_per_mac[layer.kind] * layer.dense_macs
            parts = {
                STRIDED if strided else layer.kind: ms_from_ns(work_ns),
                WEIGHTS: ms_from_ns(profile.ns_per_weight_byte * layer.weight_bytes),
                MAPS: ms_from_ns(profile.ns_per_map_byte * layer.map_bytes),
                LAYERS: ms_from_us(profile.overhead_us),
            }
        for term, ms in parts.items():
            if ms > 0:
                found[term] = found.get(term, 0.0) + ms
    return found


def multiplied(profile: DeviceProfile, times: Mapping[str, float], call_ms: float) -> DeviceProfile:
    """A profile with every term so many times as dear, in all number formats alike.

    times : for each of `TERMS`. call_ms : of a call, as it shall be.
    """
    formats = {
        name: msgspec.structs.replace(price, **_layer_prices(price, times))
        for name, price in profile.number_formats.items()
    }
    coding = ("jpeg_ns_per_pixel", "webp_ns_per_pixel", "codec_ns_per_number", "frame_ns_per_byte")
    return msgspec.structs.replace(
        profile, **_layer_prices(profile, times), call_ms=call_ms, number_formats=formats,
        ns_per_element={kind: times[kind] * ns for kind, ns in profile.ns_per_element.items()},
        **{name: times[CODING] * getattr(profile, name) for name in coding},
    )  # fmt: skip


def _layer_prices(price: DeviceProfile | FormatPrice, times: Mapping[str, float]) -> dict[str, object]:
    return {
        "ns_per_mac": {kind: times[kind] * ns for kind, ns in price.ns_per_mac.items()},
        "strided_ratio": price.strided_ratio * times[STRIDED] / times["conv3x3"],
        "ns_per_weight_byte": times[WEIGHTS] * price.ns_per_weight_byte,
        "ns_per_map_byte": times[MAPS] * price.ns_per_map_byte,
        "overhead_us": times[LAYERS] * price.overhead_us,
    }
