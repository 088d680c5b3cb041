"""From measured stacks to a device profile, and how far the profile is from them.

Non-negative least squares on relative error. Bringing tensors into and out of our layout at a block's edges, which is
part of every measurement and of no layer, gets a coefficient of its own, which the profile leaves out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from modeltree.layers import LayerSpec
from modeltree.profiles import ELEMENT_KINDS, MAC_KINDS, DeviceProfile, Measurement
from nas.profiling.timing import Timing

STRIDED = "conv3x3"
"""The kind whose MACs cost more with a stride or groups: `DeviceProfile.strided_ratio`."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A measured stack. edge_numbers : in its input and output, if they are maps."""

    name: str
    kind: str
    layers: tuple[LayerSpec, ...]
    edge_numbers: int
    timing: Timing


@dataclass(frozen=True, kw_only=True)
class Coefficients:
    """What the fit found; as in `DeviceProfile`, and `edge_ns` per number at a block's edges."""

    ns_per_mac: dict[str, float]
    ns_per_element: dict[str, float]
    ns_per_weight_byte: float
    ns_per_map_byte: float
    strided_ratio: float
    overhead_us: float
    edge_ns: float


@dataclass(frozen=True, kw_only=True)
class Residual:
    """Relative error of the linear model on the stacks of one kind."""

    kind: str
    count: int
    median: float
    worst: float
    worst_name: str


def fitted(samples: Sequence[Sample]) -> Coefficients:
    """Coefficients that are nearest to all samples, each counting the same."""
    rows = np.array([_row(sample) for sample in samples])
    times = np.array([sample.timing.ms for sample in samples])
    values, _ = nnls(rows / times[:, None], np.ones(len(times)))
    found = [float(f"{value:.5g}") for value in values]
    macs, elements, others = found[: len(MAC_KINDS)], found[len(MAC_KINDS) : -5], found[-5:]
    strided, byte, map_byte, overhead, edge = others
    ns_per_mac = dict(zip(MAC_KINDS, macs))
    plain = ns_per_mac[STRIDED]
    if not plain:  # nothing without a stride was measured: what was is all there is
        ns_per_mac[STRIDED] = strided
    return Coefficients(
        ns_per_mac=ns_per_mac, ns_per_element=dict(zip(ELEMENT_KINDS, elements)), ns_per_weight_byte=byte,
        ns_per_map_byte=map_byte, overhead_us=overhead, edge_ns=edge,
        strided_ratio=float(f"{strided / plain:.4g}") if plain and any(map(_strided_macs, samples)) else 1.0,
    )  # fmt: skip


def _row(sample: Sample) -> list[float]:
    """Milliseconds that a sample takes for a coefficient of 1 each."""
    layers = sample.layers
    macs = [sum(layer.dense_macs for layer in layers if layer.kind == kind) * 1e-6 for kind in MAC_KINDS]
    strided = _strided_macs(sample) * 1e-6
    macs[MAC_KINDS.index(STRIDED)] -= strided
    elements = [sum(layer.elements for layer in layers if layer.kind == kind) * 1e-6 for kind in ELEMENT_KINDS]
    heavy = [layer for layer in layers if layer.kind in MAC_KINDS]
    weights = sum(layer.weight_bytes for layer in heavy) * 1e-6
    maps = sum(layer.map_bytes for layer in heavy) * 1e-6
    return [*macs, *elements, strided, weights, maps, len(heavy) * 1e-3, sample.edge_numbers * 1e-6]


def _strided_macs(sample: Sample) -> int:
    """Of 3x3 convolutions that fast kernels do not serve."""
    return sum(layer.dense_macs for layer in sample.layers if layer.kind == STRIDED and not layer.plain)


def residuals(samples: Sequence[Sample], profile: DeviceProfile, edge_ns: float) -> list[Residual]:
    """Per kind of stack."""
    found = []
    for kind in dict.fromkeys(sample.kind for sample in samples):
        errors = {s.name: error(s, profile, edge_ns) for s in samples if s.kind == kind}
        worst = max(errors, key=lambda name: abs(errors[name]))
        median = float(np.median(np.abs(list(errors.values()))))
        found.append(Residual(kind=kind, count=len(errors), median=median, worst=errors[worst], worst_name=worst))
    return found


def error(sample: Sample, profile: DeviceProfile, edge_ns: float) -> float:
    """Predicted over measured, less one."""
    return (profile.compute_ms(sample.layers) + edge_ns * sample.edge_numbers * 1e-6) / sample.timing.ms - 1


def measurements(samples: Sequence[Sample]) -> tuple[Measurement, ...]:
    """As a profile keeps them."""
    return tuple(
        Measurement(
            network=sample.name, latency_ms=float(f"{sample.timing.ms:.5g}"),
            note=f"95 % {sample.timing.low_ms:.4g}..{sample.timing.high_ms:.4g} ms",
        )
        for sample in samples
    )  # fmt: skip
