"""Images that cannot be read: left out, and said so."""

import warnings
from collections.abc import Sequence
from pathlib import Path

from modeltree.errors import BrokenImages

_NAMED = 3


def warn_of_broken(reasons: Sequence[str], count: int, folder: Path) -> None:
    """Say which of `count` images were left out, and why; the first few by name."""
    more = f"; and {len(reasons) - _NAMED} more" if len(reasons) > _NAMED else ""
    text = f"{len(reasons)} of {count} images in {folder} are left out: {'; '.join(reasons[:_NAMED])}{more}"
    warnings.warn(text, BrokenImages, stacklevel=3)
