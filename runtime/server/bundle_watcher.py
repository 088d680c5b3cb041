"""Noticing that another bundle lies where the served one did: a link that points elsewhere, or a folder replaced."""

import os
from pathlib import Path

from modeltree.manifest import MANIFEST_NAME

Stamp = tuple[str, int, int, int] | None


class Watch:
    """Looks at a bundle's manifest when asked. `nas compile` and links replace a bundle whole, so a look is enough.

    What has changed is told once it looked the same twice in a row, so that a folder that is being copied into is
    not read half way.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._served = self._seen = stamp(folder)

    def changed(self) -> bool:
        """Whether another bundle is there now, and has settled; each is told once."""
        now, before = stamp(self._folder), self._seen
        self._seen = now
        if now is None or now == self._served or now != before:
            return False
        self._served = now
        return True


def stamp(folder: Path) -> Stamp:
    """What tells one bundle from another without reading it; None where there is none."""
    try:
        real = folder.resolve(strict=True)
        found = os.stat(real / MANIFEST_NAME)
    except OSError:
        return None
    return str(real), found.st_ino, found.st_mtime_ns, found.st_size
