"""Both profiles and the crossing as they would have predicted what was met, and how far off they were and are."""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from modeltree.errors import ConfigError
from modeltree.met import NOTHING_MS, Encoded, Met, Timed
from modeltree.profiles import WEBP_ENCODE, DeviceProfile
from modeltree.units import ms_from_ns
from nas.refit.fitting import Fit, Sample, fitted
from nas.refit.terms import CODING, TERMS, WHOLE, multiplied, terms_ms

REFITTED = "_met"
"""Ends the name of a profile that was mended."""

_MEDIAN_ERROR = 1.25  # standard error of a median over that of a mean
_QUARTILE = 0.6745  # of a normal distribution, in deviations


@dataclass(frozen=True, kw_only=True)
class Mended:
    """A profile before and after, and the fit between them."""

    before: DeviceProfile
    profile: DeviceProfile
    fit: Fit

    def ms(self, one: Timed) -> float:
        """What the mended profile says of a block or a rest."""
        return self.fit.ms(_parts_ms(one, self.before))


@dataclass(frozen=True, kw_only=True)
class Refitted:
    """Two profiles, and what crossing takes beside the round trip and the bytes of what crosses.

    rtt_ms : the link's own, where a session measured it; None where a field run played one.
    device_fit, cloud_fit : what the profiles came from.
    """

    device_fit: Mended
    cloud_fit: Mended
    rtt_ms: float | None
    extra_ms: float
    message_bytes: int

    @property
    def device(self) -> DeviceProfile:
        """The device's profile, mended."""
        return self.device_fit.profile

    @property
    def cloud(self) -> DeviceProfile:
        """The server's."""
        return self.cloud_fit.profile


@dataclass(frozen=True, kw_only=True)
class Missed:
    """How far off a part was: medians of |predicted - met| over met.

    kinds : how many different things. before : as the profiles said. after : as the mended ones do. left_out : each as
        those would that were mended without it; NaN where that was not tried.
    """

    part: str
    kinds: int
    before: float
    after: float
    left_out: float


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
    crossed, own = met.crossed, _mended(device, list(met.blocks.values()), met.origin)
    return Refitted(
        device_fit=Mended(before=own.before, profile=_coded(own.profile, met.encodings), fit=own.fit),
        cloud_fit=_mended(cloud, list(met.rests.values()), met.origin),
        rtt_ms=crossed.rtt_ms if crossed is not None and met.kind == "session" else None,
        extra_ms=max(0.0, crossed.extra_ms) if crossed is not None else 0.0,
        message_bytes=max(0, round(crossed.message_bytes)) if crossed is not None else 0,
    )


def errors_of(met: Met, found: Refitted, *, same: bool = True) -> list[Missed]:
    """Of each part, what is predicted and met to take next to nothing aside.

    same : whether `found` was made from `met`; else nothing is left out, and a crossing is off by at most what is said.
    """
    rows = [
        _missed("device", list(met.blocks.values()), found.device_fit.ms, found.device_fit.fit, same),
        _missed("encode", [one for one in met.encodings if one.code != "came"], _coding(found.device), None, same),
        _missed("server", list(met.rests.values()), found.cloud_fit.ms, found.cloud_fit.fit, same),
    ]
    if (crossed := met.crossed) is not None and crossed.error is not None and crossed.mended_error is not None:
        elsewhere = abs(found.extra_ms - max(0.0, crossed.extra_ms)) / crossed.ms  # 0 where it was made from `met`
        left = crossed.mended_error + elsewhere
        rows.insert(2, Missed(part="transfer", kinds=1, before=crossed.error, after=left, left_out=math.nan))
    return [row for row in rows if row.kinds]


def _missed(
    part: str, times: Sequence[Timed] | Sequence[Encoded], mended: Callable[..., float], fit: Fit | None, same: bool
) -> Missed:  # fmt: skip
    """One row; `fit` has what was left out, of those times alone that were fitted."""
    told = [one for one in times if one.ms > 0 and max(one.ms, one.predicted_ms) >= NOTHING_MS]
    left = math.nan
    if same and fit is not None and fit.left_out:
        known = [one for one in times if isinstance(one, Timed) and _counts(one)]
        pairs = [(one, ms) for one, ms in zip(known, fit.left_out, strict=True) if one in told]
        left = _median([abs(ms / one.ms - 1) for one, ms in pairs])
    return Missed(
        part=part, kinds=len(told), before=_median([abs(one.predicted_ms / one.ms - 1) for one in told]),
        after=_median([abs(mended(one) / one.ms - 1) for one in told]), left_out=left,
    )  # fmt: skip


def _median(values: Sequence[float]) -> float:
    return statistics.median(values) if values else math.nan


def _counts(one: Timed) -> bool:
    """Whether a time says something of a profile."""
    return one.predicted_ms > 0 and one.ms > 0


def _mended(profile: DeviceProfile, times: Sequence[Timed], origin: str) -> Mended:
    samples = [Sample(terms_ms=_parts_ms(one, profile), ms=one.ms, noise=_noise(one)) for one in times if _counts(one)]
    fit = fitted(samples, TERMS, profile.call_ms)
    met = {term for sample in samples for term in sample.terms_ms}
    said = ", ".join(f"{term} {fit.times[term]:.3g}" for term in TERMS if term in met)
    name = profile.name.removesuffix(REFITTED) + REFITTED
    mended = msgspec.structs.replace(
        multiplied(profile, fit.times, fit.call_ms), name=name,
        origin=f"{profile.origin}; mended by {origin}: {fit.call_ms:.3g} ms a call, times {said or 'nothing'}",
    )  # fmt: skip
    return Mended(before=profile, profile=mended, fit=fit)


def _parts_ms(one: Timed, profile: DeviceProfile) -> dict[str, float]:
    """What a profile says of a block or a rest, term by term and without the call; as a whole where its layers are not
    known."""
    if not one.layers:
        return {WHOLE: max(0.0, one.predicted_ms - profile.call_ms)}
    parts = terms_ms(profile, one.layers)
    beside = one.predicted_ms - profile.call_ms - math.fsum(parts.values())
    return parts | ({CODING: beside} if beside > 1e-3 * one.predicted_ms else {})


def _noise(one: Timed) -> float:
    """Standard error of a median, relative."""
    return _MEDIAN_ERROR * one.spread / _QUARTILE / math.sqrt(one.count) / one.ms


def _coding(profile: DeviceProfile) -> Callable[[Encoded], float]:
    def ms(one: Encoded) -> float:
        name, units = _coefficient(one)
        return ms_from_ns(getattr(profile, name) * units)

    return ms


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
