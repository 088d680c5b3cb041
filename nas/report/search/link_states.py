"""Which leaf serves which state of the link, and what every other choice would take there."""

from collections.abc import Sequence

from markupsafe import Markup

from nas.names import TITLES, UNFORKED
from nas.report.pieces import cells
from nas.report.pieces.blocks import Text, section, tag
from nas.report.pieces.table import Cell, table
from nas.results.summary import Summary

_NOTE = (
    "Latencies while the link stays as it is, the best of each state marked. A choice that is best in one state and "
    "bad in another is what forking avoids."
)


def link_states_section(summary: Summary) -> Markup:
    """The section, or nothing where a run does not know it or the link has one state."""
    states = summary.link_states or []
    if len(states) < 2:
        return Markup()
    names = list(states[0].latency_ms)
    titles = {UNFORKED: "Best path without forks"} | TITLES
    rows: list[Sequence[Text | Cell]] = []
    for state in states:
        least = min(state.latency_ms.values())
        took = [
            Cell(text=cells.ms(ms), classes="best" if ms <= least else "") for ms in map(state.latency_ms.get, names)
            if ms is not None
        ]  # fmt: skip
        way = f"leaf {state.leaf}: {state.path}"
        rows.append(
            [Cell(text=state.range, classes="text"), cells.ms(state.rtt_ms), Cell(text=way, classes="text"), *took]
        )
    head = ["state of the link", "round trip", "the tree does", *(titles.get(name, name) for name in names)]
    single = summary.unforked
    note = _NOTE if single is None else f"{_NOTE} The best path without forks: {single.path}."
    return section("What is done when", table(head, rows, [("", 3), (tag("predicted"), len(names))]), note=note)
