"""How inferences of a field run ended where trees have early exits, or hand-overs of chosen bits: shares of each."""

from collections.abc import Sequence

from nas.field.tally import Tally, endings
from nas.report.pieces import cells
from nas.report.pieces.svg import escape, method_class


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
