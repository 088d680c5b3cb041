"""What the exits and the coded hand-overs of the base network are worth on their own."""

from collections.abc import Sequence

from modeltree.render import ms_text
from nas.report.pieces import cells
from nas.report.pieces.svg import escape
from nas.results.summary import CodeRow, ExitRow, Summary


def endings_section(summary: Summary) -> str:
    """The section, or nothing for a search without them."""
    parts = [_exits(summary.exits or []), _codes(summary.codes or [])]
    shown = "".join(part for part in parts if part)
    if not shown:
        return ""
    note = (
        "Each alone, with the base network in front and behind, on search images. Points are of accuracy against the "
        "whole network at full width; bytes are of the frame that crosses, after entropy coding."
    )
    title = f"Early exits and coded hand-overs {cells.kind('measured')}"
    return f'<section><h2>{title}</h2><p class="note">{escape(note)}</p>{shown}</section>'


def _exits(rows: Sequence[ExitRow]) -> str:
    if not rows:
        return ""
    head = ("exit", "at place", "head (predicted)", "points lost if all leave", "sure below", "share that is sure")
    body = [
        (str(row.exit), str(row.place), ms_text(row.head_ms), f"{row.drop:.2f}", f"{row.entropy:.3g} nats",
         f"{100 * row.rate:.0f} %")
        for row in rows
    ]  # fmt: skip
    return _table(head, body)


def _codes(rows: Sequence[CodeRow]) -> str:
    """One row a place, one column a code: bytes, and the points lost."""
    if not rows:
        return ""
    kinds = sorted({(row.kept > 0, row.bits) for row in rows}, key=lambda kind: (kind[0], -kind[1]))
    head = ("at place", "plain numbers", *(f"{bits} bits{', bottleneck' * narrow}" for narrow, bits in kinds))
    body = []
    for place in sorted({row.place for row in rows}):
        here = [row for row in rows if row.place == place]
        shown = [min((r for r in here if (r.kept > 0, r.bits) == k), key=lambda r: r.drop, default=None) for k in kinds]
        body.append(
            (str(place), f"{here[0].raw_bytes:,} B", *("–" if row is None else _code(row) for row in shown))
        )  # fmt: skip
    return _table(head, body)


def _code(row: CodeRow) -> str:
    return f"{row.bytes:,.0f} B, {row.drop:+.2f}"


def _table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    names = "".join(f"<th>{escape(name)}</th>" for name in head)
    rows = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in body)
    return f'<div class="scroll"><table><thead><tr>{names}</tr></thead><tbody>{rows}</tbody></table></div>'
