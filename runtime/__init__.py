"""The device's side: torch-free walking of a compiled model tree."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runtime.session import Session

__all__ = ["Session"]


def __getattr__(name: str) -> object:
    """`Session`, imported when it is asked for: importing a part of `runtime` imports no more than that part."""
    if name != "Session":
        raise AttributeError(f"runtime has no attribute {name!r}: it has Session; import others from their files")
    from runtime.session import Session

    return Session
