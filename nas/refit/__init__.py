"""Profiles mended by what was met: what a search reckons with where there is a field run or a session's log."""

from nas.refit.mending import REFITTED, Missed, Refitted, errors_of, refitted

__all__ = ["REFITTED", "Missed", "Refitted", "errors_of", "refitted"]
