"""What a run found, for people: a verdict in plain sentences and a self-contained page."""

from nas.report.search.page import write_report
from nas.results.verdict import verdict

__all__ = ["verdict", "write_report"]
