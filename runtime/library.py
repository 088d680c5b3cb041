"""The public address of what calls a compiled block; the work is in `runtime.execution.library`."""

from runtime.execution.library import Library

__all__ = ["Library"]
