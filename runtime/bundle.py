"""The public address of what reads a bundle; the work is in `runtime.execution.bundle`."""

from runtime.execution.bundle import Bundle

__all__ = ["Bundle"]
