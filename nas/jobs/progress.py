"""How long work says how far it is."""

from collections.abc import Callable

Progress = Callable[[int, int, str], None]
"""Called with (done, of how many, what now)."""

StageProgress = Callable[[str, int, int, str], None]
"""Called with (stage, done, of how many, what now)."""


def silent(done: int, total: int, text: str) -> None:
    """The progress of those who do not ask."""


def silent_stages(stage: str, done: int, total: int, text: str) -> None:
    """The same of stages."""
