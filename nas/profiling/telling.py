"""A measured profile and its checks in words."""

from collections.abc import Sequence

import numpy as np

from nas.profiling.checking import Checked
from nas.profiling.measuring import Profiled
from nas.profiling.timing import DRIFT


def profiled_text(found: Profiled) -> str:
    """Coefficients, how far the linear model is from the measurements, how sure these are, and a warning if need be."""
    profile = found.profile
    lines = [profile.origin, ""]
    lines += [f"{kind:12} {value:9.5f} ns/MAC" for kind, value in profile.ns_per_mac.items()]
    lines += [f"{kind:12} {value:9.5f} ns/number" for kind, value in profile.ns_per_element.items()]
    lines += [
        f"{'weights':12} {profile.ns_per_weight_byte:9.5f} ns/byte",
        f"{'maps':12} {profile.ns_per_map_byte:9.5f} ns/byte",
    ]
    lines += [f"{'strided 3x3':12} {profile.strided_ratio:9.3f} times a plain one's"]
    lines += [f"{'a layer':12} {profile.overhead_us:9.3f} us", f"{'JPEG':12} {profile.jpeg_ns_per_pixel:9.3f} ns/pixel"]
    lines += ["", "Linear model against measurement, relative error:"]
    for one in found.residuals:
        lines.append(
            f"{one.kind:12} {one.count:3} stacks, median {100 * one.median:5.1f} %, "
            f"worst {100 * one.worst:+6.1f} % ({one.worst_name})"
        )
    width = [100 * (s.timing.high_ms - s.timing.low_ms) / s.timing.ms for s in found.samples]
    lines.append(
        f"95 % intervals of the measurements: median width {np.median(width):.1f} %, widest {max(width):.1f} %."
    )
    lines.append(f"A reference that was timed again and again drifted by {100 * found.drift:.1f} %.")
    if found.throttled:
        lines.append(
            f"Warning: more than {100 * DRIFT:.0f} %: throttled or disturbed. Measure again on a cool, idle device."
        )
    return "\n".join(lines) + "\n"


def checks_text(branches: Sequence[Checked]) -> str:
    """Markdown: every branch, then the mean and the median error."""
    lines = ["", "| base | choices | predicted ms | measured ms | error % |", "|---|---|---|---|---|"]
    for one in branches:
        cells = f"{one.predicted_ms:.3f} | {one.measured_ms:.3f} | {100 * one.error:+.1f}"
        lines.append(f"| {one.name} | {one.choices} | {cells} |")
    errors = 100 * np.abs([one.error for one in branches])
    lines.append("")
    lines.append(
        f"Prediction against measurement, {len(branches)} random branches: mean error {errors.mean():.1f} %, "
        f"median {np.median(errors):.1f} %, worst {errors.max():.1f} %."
    )
    return "\n".join(lines) + "\n"
