"""Profiles mended by what was met: what a search reckons with where there is a field run or a session's log.

What a profile predicts and what was met lie on a line, met = a + b predicted, of which a is what every call takes and b
scales all that depends on layers; of all lines it has the least sum of relative errors. Coding has coefficients of its
own.
"""

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from modeltree.errors import ConfigError
from modeltree.met import Crossed, Encoded, Met, Timed
from modeltree.profiles import WEBP_ENCODE, DeviceProfile
from modeltree.units import ms_from_ns

REFITTED = "_met"
"""Ends the name of a profile that was mended."""

_APART = 1.5
"""Two predictions that are no farther apart than so many times tell a and b not apart."""

_MOST = 100
"""Of the points, whose pairs are tried."""


@dataclass(frozen=True, kw_only=True)
class Refitted:
    """Two profiles, and what crossing takes beside the round trip and the bytes of what crosses.

    rtt_ms : the link's own, where a session measured it; None where a field run played one.
    """

    device: DeviceProfile
    cloud: DeviceProfile
    rtt_ms: float | None
    extra_ms: float
    message_bytes: int


def refitted(met: Met, device: DeviceProfile, cloud: DeviceProfile) -> Refitted:
    """Both profiles as they would have predicted what was met.

    Raises
    ------
    ConfigError : the tree that was run had been searched with other profiles.
    """
    for known, profile, option in ((met.device, device, "device"), (met.cloud, cloud, "cloud")):
        if known != profile.name:
            raise ConfigError(
                f"what was met was predicted with the {option} profile {known}, and this is {profile.name}: pass "
                f"--{option} with the profile that the tree was searched with"
            )
    crossed = met.crossed
    return Refitted(
        device=_coded(_scaled(device, list(met.blocks.values()), met.origin), met.encodings),
        cloud=_scaled(cloud, list(met.rests.values()), met.origin),
        rtt_ms=crossed.rtt_ms if crossed is not None and met.kind == "session" else None,
        extra_ms=max(0.0, crossed.extra_ms) if crossed is not None else 0.0,
        message_bytes=max(0, round(crossed.message_bytes)) if crossed is not None else 0,
    )


def errors_of(met: Met, found: Refitted) -> list[tuple[str, int, float, float]]:
    """(part, kinds of it, median error of what was predicted, and of what would be now), as shares of the met."""
    rows: list[tuple[str, Sequence[Timed | Encoded | Crossed], list[float]]] = []
    for part, times in (("device", list(met.blocks.values())), ("server", list(met.rests.values()))):
        a, b = line_of(times)
        mended = [a + b * one.predicted_ms for one in times]
        rows.append((part, times, mended))
    coded = [one for one in met.encodings if one.code != "came"]
    rows.insert(1, ("encode", coded, [_coding_ms(found.device, one) for one in coded]))
    crossed = [] if met.crossed is None else [met.crossed]
    rows.insert(2, ("transfer", crossed, [one.ms for one in crossed]))
    return [
        (part, len(times), _error([one.predicted_ms for one in times], times), _error(mended, times))
        for part, times, mended in rows if times
    ]  # fmt: skip


def _error(said_ms: Sequence[float], times: Sequence[Timed | Encoded | Crossed]) -> float:
    return statistics.median(abs(ms / one.ms - 1) for ms, one in zip(said_ms, times, strict=True) if one.ms > 0)


def _coding_ms(profile: DeviceProfile, one: Encoded) -> float:
    name, units = _coefficient(one)
    return ms_from_ns(getattr(profile, name) * units)


def line_of(times: Sequence[Timed]) -> tuple[float, float]:
    """(a, b) of the line nearest to what was met, neither below 0; (0, 1) where nothing was met that was predicted.

    The sum of absolute errors is least on a line through two of the points, so that one outlier moves nothing.
    """
    known = [one for one in times if one.predicted_ms > 0 and one.ms > 0]
    if not known:
        return 0.0, 1.0
    predicted, met = (np.array([getattr(one, name) for one in known]) for name in ("predicted_ms", "ms"))
    lines = [(0.0, 1.0), *((0.0, b) for b in (met / predicted).tolist())]
    for i, j in itertools.combinations(range(min(len(known), _MOST)), 2):
        if max(predicted[i], predicted[j]) >= _APART * min(predicted[i], predicted[j]):
            b = (met[j] - met[i]) / (predicted[j] - predicted[i])
            lines.append((float(met[i] - b * predicted[i]), float(b)))
    return min(
        ((a, b) for a, b in lines if a >= 0 and b > 0),
        key=lambda line: float(np.abs((line[0] + line[1] * predicted) / met - 1).sum()),
    )


def _scaled(profile: DeviceProfile, times: Sequence[Timed], origin: str) -> DeviceProfile:
    a, b = line_of(times)
    share = {"ns_per_mac": profile.ns_per_mac, "ns_per_element": profile.ns_per_element}
    scaled = {name: {kind: b * ns for kind, ns in values.items()} for name, values in share.items()}
    plain = ("overhead_us", "ns_per_weight_byte", "ns_per_map_byte", "jpeg_ns_per_pixel", "webp_ns_per_pixel",
             "codec_ns_per_number")  # fmt: skip
    return msgspec.structs.replace(
        profile, name=profile.name.removesuffix(REFITTED) + REFITTED,
        origin=f"{profile.origin}; mended by {origin}: {a:.3g} ms a call and {b:.4g} times the layers",
        call_ms=a + b * profile.call_ms, **scaled, **{name: b * getattr(profile, name) for name in plain},
    )  # fmt: skip


def _coded(profile: DeviceProfile, encodings: Sequence[Encoded]) -> DeviceProfile:
    """The profile with coefficients of coding as they were met; of what was not met, as they were."""
    met: dict[str, list[float]] = {}
    for one in encodings:
        name, units = _coefficient(one)
        met.setdefault(name, []).append(one.ms / ms_from_ns(units))
    found = {name: statistics.median(values) for name, values in met.items() if name}
    if "jpeg_ns_per_pixel" not in found and "webp_ns_per_pixel" in found:
        found["jpeg_ns_per_pixel"] = found["webp_ns_per_pixel"] / WEBP_ENCODE
    return msgspec.structs.replace(profile, **found)


def _coefficient(one: Encoded) -> tuple[str, int]:
    """What a time of coding says, and of how many units; nothing of a file that is sent as it came."""
    kind = one.code.partition(":")[0]
    if kind in ("jpeg", "webp"):
        return f"{kind}_ns_per_pixel", one.units
    if kind in ("raw", "32 bits"):
        return "frame_ns_per_byte", one.units * (1 if kind == "raw" else 4)
    return ("codec_ns_per_number" if kind.endswith("bits") else "", one.units)
