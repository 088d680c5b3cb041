"""The only place where units are converted. `_mbps` is 10**6 bit/s, `_bytes` are 8 bits, `_ms` is 10**-3 s."""


def bytes_per_ms(bandwidth_mbps: float) -> float:
    """Bytes that a link of `bandwidth_mbps` carries in a millisecond (1 Mbit/s is 125 bytes/ms)."""
    return bandwidth_mbps * 125.0


def mbps(size_bytes: float, time_ms: float) -> float:
    """Bandwidth that carries `size_bytes` in `time_ms`."""
    return size_bytes / time_ms / 125.0


def ms_from_ns(ns: float) -> float:
    """Nanoseconds to milliseconds."""
    return ns * 1e-6


def ms_from_us(us: float) -> float:
    """Microseconds to milliseconds."""
    return us * 1e-3


def ms_from_s(seconds: float) -> float:
    """Seconds to milliseconds."""
    return seconds * 1e3


def s_from_ms(ms: float) -> float:
    """Milliseconds to seconds."""
    return ms * 1e-3


def bytes_from_mb(megabytes: float) -> float:
    """Megabytes (10**6 bytes) to bytes."""
    return megabytes * 1e6
