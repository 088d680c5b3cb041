"""How inferences of a field run ended where trees have early exits, or hand-overs of chosen bits: shares of each."""

from collections.abc import Sequence

from nas.field.record import Leaf, MethodRun
from nas.report import cells
from nas.report.field_numbers import Tally
from nas.report.svg import escape, method_class

ELSEWHERE = "elsewhere"


def endings(run: MethodRun) -> dict[str, float]:
    """Percent of the inferences by early exit, and by bits that they crossed in; empty for a tree without such forks.

    What was to cross and was answered here counts with its bits all the same; all other paths end `elsewhere`.
    """
    known = {leaf.leaf: _ending(leaf) for leaf in run.leaves}
    if not run.shots or set(known.values()) <= {ELSEWHERE}:
        return {}
    ends = [known.get(shot.nodes[-1], ELSEWHERE) if shot.nodes else ELSEWHERE for shot in run.shots]
    order = sorted(set(ends), key=lambda what: (what == ELSEWHERE, what.endswith("bits"), len(what), what))
    return {what: 100 * ends.count(what) / len(ends) for what in order}


def endings_section(found: Sequence[Tally]) -> str:
    """A table of the methods that have such forks; empty where none has."""
    ends = {one.name: told for one in found if (told := endings(one.run))}
    if not ends:
        return ""
    columns = list(dict.fromkeys(what for told in ends.values() for what in told))
    head = "".join(f"<th>{escape(what)}</th>" for what in columns)
    rows = "".join(_row(one, [ends[one.name].get(what) for what in columns]) for one in found if one.name in ends)
    note = "Shares of the inferences: through which early exit they left, or in how many bits a number they crossed."
    return (
        f'<section><h2>Exits and bits {cells.kind("measured")}</h2><p class="note">{note}</p><div class="scroll">'
        f"<table><thead><tr><th>method</th>{head}</tr></thead><tbody>{rows}</tbody></table></div></section>"
    )


def _row(one: Tally, shares: Sequence[float | None]) -> str:
    shown = "".join(f"<td>{'–' if share is None else f'{share:.1f} %'}</td>" for share in shares)
    return f'<tr><td><span class="swatch {method_class(one.name)}"></span>{escape(one.title)}</td>{shown}</tr>'


def _ending(leaf: Leaf) -> str:
    exit = [] if leaf.exit is None else [f"exit {leaf.exit}"]
    bits = [] if leaf.bits is None else [f"{leaf.bits} bits"]
    return ", ".join(exit + bits) or ELSEWHERE
