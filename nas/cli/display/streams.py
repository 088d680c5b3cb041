"""Standard streams as they may be: closed, full, or of a locale without our characters."""

import codecs
import contextlib
import errno
import os
import sys
from typing import TextIO

_PLAIN = str.maketrans(
    {
        "│": "|", "├": "+", "└": "`", "─": "-", "┌": ",", "┐": ".", "┘": "'", "┬": "+", "┼": "+", "┴": "+", "┤": "+",
        "→": "->", "←": "<-", "×": "x", "…": "...", "µ": "u", "±": "+-", "≥": ">=", "≤": "<=", "–": "-", "«": '"',
        "»": '"', "•": "*", "·": ".", "█": "#", "▁": "_", "▂": "_", "▃": "-", "▄": "-", "▅": "=", "▆": "=", "▇": "#",
    }
)  # fmt: skip
_HANDLER = "nas-plain"
_FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EIO)
_BROKEN_PIPE = 141  # 128 and the signal, as shells say it


def _plain(error: UnicodeError) -> tuple[str, int]:
    """What stands for characters that a stream cannot write."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end].translate(_PLAIN)
    return text.encode("ascii", "replace").decode("ascii"), error.end


def prepare_streams() -> None:
    """Give closed standard streams a place to go, and those of a poor locale characters that they can write."""
    codecs.register_error(_HANDLER, _plain)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - lives as long as the process
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=_HANDLER)


def end_unless_written(stream: TextIO) -> None:
    """Write out what a stream still holds, and end the process where that cannot be."""
    try:
        stream.flush()
    except OSError as error:
        end_if_full(error, stream)
        raise


def end_if_full(error: OSError, stream: TextIO) -> None:
    """End with status 141 if a stream's reader has gone, with a line and status 2 if its disk is full."""
    if isinstance(error, BrokenPipeError):
        _forget(stream)
        sys.exit(_BROKEN_PIPE)
    if error.errno in _FULL and error.filename is None:
        _forget(stream)
        print(f"nas: cannot write to standard output: {error.strerror}: free some space", file=sys.stderr)
        sys.exit(2)


def _forget(stream: TextIO) -> None:
    """Send what a stream still holds nowhere, so that the end of the process does not try again."""
    with contextlib.suppress(OSError, ValueError):
        target = os.open(os.devnull, os.O_WRONLY)
        os.dup2(target, stream.fileno())
        os.close(target)
