"""What glibc keeps of memory that was given back, bounded.

glibc makes up to eight arenas a processor for the threads that ask at once, and what one has freed the next cannot
take: under overload, where hundreds of threads hold a message each for a moment, a server grows by megabytes a minute.
Here are two arenas; blocks from 256 KiB on go back to the system at once (glibc else moves that limit up to 32 MB); and
what lies free is given back every few seconds.
"""

import ctypes
from typing import Any

_ARENA_MAX, _MMAP_THRESHOLD, _TRIM_THRESHOLD = -8, -3, -1
"""Numbers of `malloc.h`."""
ARENAS, LARGE_BYTES = 2, 256 * 2**10


def bound_arenas() -> bool:
    """Set glibc's limits for the whole process, before it starts threads; False where the C library has none."""
    library = _glibc()
    if library is None:
        return False
    limits = ((_ARENA_MAX, ARENAS), (_MMAP_THRESHOLD, LARGE_BYTES), (_TRIM_THRESHOLD, LARGE_BYTES))
    return all(library.mallopt(number, value) == 1 for number, value in limits)


def trim() -> None:
    """Give free pages back to the system; nothing where the C library cannot."""
    if (library := _glibc()) is not None:
        library.malloc_trim(0)


def _glibc() -> Any:
    library = ctypes.CDLL(None)
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None
