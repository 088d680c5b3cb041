"""What the exits and the coded hand-overs of the base network are worth on their own."""

from collections.abc import Sequence

from markupsafe import Markup

from modeltree.image_codes import image_code
from modeltree.tree.render import ms_text
from nas.report.pieces.blocks import section
from nas.report.pieces.cells import NONE
from nas.report.pieces.table import table
from nas.results.summary import CodeRow, ExitRow, PictureRow, Summary


def endings_section(summary: Summary) -> Markup:
    """The section, or nothing for a search without them."""
    note = (
        "Each alone, with the base network in front and behind, on search images. Points are of accuracy against the "
        "whole network at full width; bytes are of the frame that crosses, after entropy coding."
    )
    parts = _exits(summary.exits or []), _codes(summary.codes or []), _pictures(summary.pictures or [])
    return section("Early exits and coded hand-overs", *parts, kind="measured", note=note)


def _pictures(rows: Sequence[PictureRow]) -> Markup:
    """Ways to send the picture itself that were offered, raw pixels first."""
    head = ("the picture itself, as", "bytes", "points lost", "coding on the device (predicted)")
    body = [(image_code(r.code).title, f"{r.bytes:,.0f}", f"{r.drop:+.2f}", ms_text(r.encode_ms)) for r in rows]
    raw = [("raw pixels", f"{rows[0].raw_bytes:,}", "+0.00", ms_text(0.0))] if rows else []
    return table(head, raw + body)


def _exits(rows: Sequence[ExitRow]) -> Markup:
    head = ("exit", "at place", "head (predicted)", "points lost if all leave", "sure below", "share that is sure")
    return table(head, [
        (str(row.exit), str(row.place), ms_text(row.head_ms), f"{row.drop:.2f}", f"{row.entropy:.3g} nats",
         f"{100 * row.rate:.0f} %")
        for row in rows
    ])  # fmt: skip


def _codes(rows: Sequence[CodeRow]) -> Markup:
    """One row a place, one column a code: bytes, and the points lost."""
    kinds = sorted({(row.kept > 0, row.bits) for row in rows}, key=lambda kind: (kind[0], -kind[1]))
    head = ("at place", "plain numbers", *(f"{bits} bits{', bottleneck' * narrow}" for narrow, bits in kinds))
    body = []
    for place in sorted({row.place for row in rows}):
        here = [row for row in rows if row.place == place]
        best = [min((r for r in here if (r.kept > 0, r.bits) == k), key=lambda r: r.drop, default=None) for k in kinds]
        shown = (NONE if row is None else f"{row.bytes:,.0f} B, {row.drop:+.2f}" for row in best)
        body.append((str(place), f"{here[0].raw_bytes:,} B", *shown))
    return table(head, body)
