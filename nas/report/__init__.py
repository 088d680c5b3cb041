"""What a run found, for people: self-contained pages. The verdict's sentences are made in `nas.results.verdict`."""

from nas.report.search.page import write_report
from nas.results.verdict import verdict

__all__ = ["verdict", "write_report"]
