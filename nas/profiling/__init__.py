"""Measuring what operators cost on a device, through our own compiled kernels: what `nas profile` does.

`stacks` says what is measured, `timing` measures it here or over RPC, `fitting` makes coefficients of it, `checking`
holds the profile against branches it has never seen.
"""

from nas.profiling.checking import Checked, checked
from nas.profiling.measuring import Profiled, jpeg_ns_per_pixel, profiled
from nas.profiling.timing import LocalTimer, RemoteTimer

__all__ = ["Checked", "LocalTimer", "Profiled", "RemoteTimer", "checked", "jpeg_ns_per_pixel", "profiled"]
