"""Measuring what operators cost on a device, through our own compiled kernels: what `nas profile` does.

`stacks` says what is measured, `timing` measures it here or over RPC (`device`), `fitting` makes coefficients of it,
`checking` holds the profile against branches it has never seen, `telling` puts all that into words.
"""

from nas.profiling.checking import Checked, checked
from nas.profiling.device import open_timer, provenance
from nas.profiling.measuring import Profiled, format_price, jpeg_ns_per_pixel, profiled, webp_ns_per_pixel
from nas.profiling.telling import checks_text, profiled_text

__all__ = [
    "Checked", "Profiled", "checked", "checks_text", "format_price", "jpeg_ns_per_pixel", "open_timer", "profiled",
    "profiled_text", "provenance", "webp_ns_per_pixel",
]  # fmt: skip
