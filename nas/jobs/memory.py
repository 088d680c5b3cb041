"""What glibc does with memory that is given back: kept here for the next feature map.

torch asks for a new block for every feature map and gives it back a moment later. glibc maps blocks of megabytes afresh
each time, and the system clears every page of them: at 224 pixels half of the time goes there.
"""

import ctypes

_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1
"""Numbers of `malloc.h`."""
_NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Have the whole process keep what it frees; False where the C library cannot. Its peak is what it was."""
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallopt"):
        return False
    return all(library.mallopt(number, _NEVER) == 1 for number in (_MMAP_THRESHOLD, _TRIM_THRESHOLD))


def give_back() -> None:
    """Give what lies free back to the system, before others work; nothing where the C library cannot."""
    library = ctypes.CDLL(None)
    if hasattr(library, "malloc_trim"):
        library.malloc_trim(0)
