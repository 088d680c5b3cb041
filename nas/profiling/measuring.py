"""A device profile from nothing: compile the stacks, time them, fit."""

import io
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from compile.program_file import program_bytes
from modeltree.image_codes import ImageCode
from modeltree.profiles import DeviceProfile, FormatPrice
from nas.jobs.progress import StageProgress, silent_stages
from nas.profiling.fitting import Residual, Sample, fitted, measurements, residuals
from nas.profiling.stacks import Stack, stacks
from nas.profiling.timing import Timer, Timings, timed
from runtime.images import coded
from transforms import analyse, export

_JPEG_SIDE, _JPEG_QUALITY = 224, 75


@dataclass(frozen=True, kw_only=True)
class Profiled:
    """A profile, and how it fits what it was made from. edge_ns : per number at a block's edges."""

    profile: DeviceProfile
    samples: tuple[Sample, ...]
    residuals: tuple[Residual, ...]
    edge_ns: float
    drift: float
    throttled: bool


def profiled(
    timer: Timer, *, name: str, description: str, origin: str, jpeg_ns: float, rounds: int, burst_s: float,
    rng: np.random.Generator, webp_ns: float = 0.0, chosen: Sequence[Stack] | None = None,
    lanes: int = 0, progress: StageProgress = silent_stages,
) -> Profiled:  # fmt: skip
    """Measure the device behind `timer`.

    Parameters
    ----------
    origin : where and how, in words; the profile's own, to which what the fit leaves out is added.
    jpeg_ns, webp_ns : to encode or decode a pixel, `jpeg_ns_per_pixel`, and to encode one, `webp_ns_per_pixel`; over
        RPC nobody can measure them for us.
    chosen : stacks to measure, all of them by default. lanes : of the target, for the profile to say.
    """
    samples, taken = _sampled(timer, chosen, rounds, burst_s, rng, progress)
    found = fitted(samples)
    profile = DeviceProfile(
        name=name, description=description,
        origin=f"{origin}. Left out: {found.edge_ns:.3g} ns per number that enters or leaves a block.",
        fitted_to=measurements(samples), ns_per_mac=found.ns_per_mac, ns_per_element=found.ns_per_element,
        overhead_us=found.overhead_us, jpeg_ns_per_pixel=jpeg_ns, ns_per_weight_byte=found.ns_per_weight_byte,
        ns_per_map_byte=found.ns_per_map_byte, strided_ratio=found.strided_ratio, webp_ns_per_pixel=webp_ns,
        lanes=lanes,
    )  # fmt: skip
    return Profiled(
        profile=profile, samples=samples, residuals=tuple(residuals(samples, profile, found.edge_ns)),
        edge_ns=found.edge_ns, drift=taken.drift, throttled=taken.throttled,
    )  # fmt: skip


def _sampled(
    timer: Timer, chosen: Sequence[Stack] | None, rounds: int, burst_s: float, rng: np.random.Generator,
    progress: StageProgress,
) -> tuple[tuple[Sample, ...], Timings]:  # fmt: skip
    """Stacks of layers, compiled and timed."""
    wanted = list(stacks() if chosen is None else chosen)
    numbers, described = [], []
    for done, stack in enumerate(wanted):
        progress("compile", done, len(wanted), stack.name)
        program = export(stack.module, stack.input_shape)
        described.append(_layers(program))
        numbers.append(timer.add(program_bytes(program)))
    progress("compile", len(wanted), len(wanted), "")
    taken: Timings = timed(
        timer, numbers, rounds=rounds, burst_s=burst_s, rng=rng,
        progress=lambda done, total, text: progress("measure", done, total, text),
    )  # fmt: skip
    samples = tuple(
        Sample(
            name=stack.name, kind=stack.kind, layers=layers, timing=timing,
            edge_numbers=math.prod(stack.input_shape) + layers[-1].elements,
        )
        for stack, layers, timing in zip(wanted, described, taken.timings)
    )  # fmt: skip
    return samples, taken


def format_price(
    timer: Timer, *, rounds: int, burst_s: float, rng: np.random.Generator, chosen: Sequence[Stack] | None = None,
    progress: StageProgress = silent_stages,
) -> FormatPrice:  # fmt: skip
    """What layers cost in the number format that the timer compiles for; arguments as those of `profiled`."""
    samples, _ = _sampled(timer, chosen, rounds, burst_s, rng, progress)
    found = fitted(samples)
    return FormatPrice(
        ns_per_mac=found.ns_per_mac, overhead_us=found.overhead_us, ns_per_weight_byte=found.ns_per_weight_byte,
        ns_per_map_byte=found.ns_per_map_byte, strided_ratio=found.strided_ratio,
    )  # fmt: skip


def _layers(program: Any) -> tuple[Any, ...]:
    spec = analyse(program).spec
    return tuple(spec.layers(0, len(spec.segments)))


def jpeg_ns_per_pixel(rounds: int = 20) -> float:
    """Encoding or decoding a photo-like image (smooth, with noise) as JPEG here, whichever takes longer; best run."""
    from PIL import Image

    side, image = _JPEG_SIDE, Image.fromarray(_photo())
    best = {"encode": math.inf, "decode": math.inf}
    for _ in range(rounds):
        buffer = io.BytesIO()
        began = time.perf_counter()
        image.save(buffer, "JPEG", quality=_JPEG_QUALITY)
        middle = time.perf_counter()
        np.asarray(Image.open(io.BytesIO(buffer.getvalue())))
        best["encode"] = min(best["encode"], middle - began)
        best["decode"] = min(best["decode"], time.perf_counter() - middle)
    return float(f"{max(best.values()) * 1e9 / side**2:.4g}")


def webp_ns_per_pixel(rounds: int = 5) -> float:
    """Encoding such an image as WebP here, as a session does it; best run."""
    pixels, code, best = _photo().transpose(2, 0, 1), ImageCode("webp", _JPEG_QUALITY), math.inf
    for _ in range(rounds):
        began = time.perf_counter()
        coded(pixels, code, "RGB")
        best = min(best, time.perf_counter() - began)
    return float(f"{best * 1e9 / _JPEG_SIDE**2:.4g}")


def _photo() -> np.ndarray:
    """(side, side, 3) uint8, smooth, with noise."""
    side = _JPEG_SIDE
    ramp = np.linspace(0, 200, side)[:, None, None] + np.random.default_rng(0).normal(20, 8, (side, side, 3))
    return np.asarray(ramp.clip(0, 255).astype(np.uint8))
