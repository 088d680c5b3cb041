"""How many files a process may have open: every connection is one."""

import sys

SERVED_FILES = 8192
"""What a server needs: connections of both fronts, twice over, and its libraries."""
_ELSEWHERE = 512


def open_files() -> int:
    """The limit as it is."""
    if sys.platform == "win32":
        return _ELSEWHERE
    import resource

    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


def allow_files(count: int) -> None:
    """Raise the limit to `count` where it is lower, as far as the system lets us."""
    if sys.platform == "win32" or open_files() >= count:
        return
    import resource

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (count if hard == resource.RLIM_INFINITY else min(count, hard), hard))
