"""Tables: plain ones, and ones that compare members over columns and mark the best of each."""

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from markupsafe import Markup

from nas.report.pieces.blocks import Text, block, swatch, tag
from nas.report.pieces.cells import NONE

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What stands in a cell. classes : of the style sheet, as `best`, `off` or `text` (words, to the left)."""

    text: Text
    tag: Text = ""
    classes: str = ""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A row of a table. classes : `chosen` or `bound`."""

    cells: Sequence[Text | Cell]
    classes: str = ""


@dataclass(frozen=True, kw_only=True)
class Column(Generic[T]):
    """One number of every member, or words; `better` is max or min, None where a column has no best.

    group : a heading over neighbouring columns, in words and as the kind of their numbers.
    origin : the kind where it may differ from member to member. classes : of its cells.
    """

    name: str
    pick: Callable[[T], Any]
    show: Callable[[Any], Text]
    better: Callable[[Iterable[float]], float] | None = None
    group: tuple[str, str] = ("", "")
    origin: Callable[[T], str] | None = None
    classes: str = ""


def table(
    head: Sequence[Text], rows: Iterable[Sequence[Text | Cell] | Entry], groups: Sequence[tuple[Text, int]] = ()
) -> Markup:
    """A table, nothing without rows. groups : headings over the head, with how many columns each spans."""
    entries = [row if isinstance(row, Entry) else Entry(cells=row) for row in rows]
    return block("table", head, groups, entries)


def named(title: Text, colour: str, *, chosen: bool = False) -> Markup:
    """The first cell of a row: a spot of the member's colour, its name, and whether it is the best choice."""
    pill = Markup('<span class="pill">best choice</span>') if chosen else Markup()
    return swatch(colour) + title + pill


def comparison(
    members: Sequence[T], columns: Sequence[Column[T]], *, title: Callable[[T], str], colour: Callable[[T], str],
    chosen: T | None = None, bounds: Iterable[Entry] = (), what: str = "method",
) -> Markup:  # fmt: skip
    """A row a member, in the given order, the best of every column marked; `bounds` are rows below."""
    kinds = {column.name: _shared_kind(column, members) for column in columns}
    best = {column.name: best_of(column, members) for column in columns}
    rows = [
        Entry(
            cells=[
                named(title(one), colour(one), chosen=one is chosen),
                *(cell_of(column, one, best[column.name], tagged=not kinds[column.name]) for column in columns),
            ],
            classes="chosen" if one is chosen else "",
        )
        for one in members
    ]
    grouped = itertools.groupby(columns, key=lambda column: (column.group[0], kinds[column.name]))
    groups = [(Markup("{} {}").format(words, tag(kind)).strip(), len(list(same))) for (words, kind), same in grouped]
    headings = [("", 1), *groups] if any(words for words, _ in groups) else []
    return table([what, *(column.name for column in columns)], [*rows, *bounds], headings)


def best_of(column: Column[T], members: Sequence[T]) -> float | None:
    """The best value of a column; None where none is marked, or all are equal."""
    if column.better is None:
        return None
    finite = [value for one in members if (value := column.pick(one)) is not None and math.isfinite(value)]
    return column.better(finite) if len(set(finite)) > 1 else None


def bound(title: str, colour: str, cells: Sequence[Text | Cell]) -> Entry:
    """A row that no member can beat."""
    return Entry(cells=[named(title, colour), *(cell or NONE for cell in cells)], classes="bound")


def cell_of(column: Column[T], member: T, best: float | None = None, *, tagged: bool = False) -> Cell:
    """What a column shows of a member, starred where it is the best value, with its own kind where `tagged`."""
    value = column.pick(member)
    kind = tag(column.origin(member)) + " " if tagged and column.origin is not None else ""
    starred = "best" if best is not None and value == best else ""
    return Cell(text=column.show(value), tag=kind, classes=starred or column.classes)


def _shared_kind(column: Column[T], members: Sequence[T]) -> str:
    """The kind that all numbers of a column share, empty if they differ."""
    origins = {column.origin(one) for one in members} if column.origin is not None else {column.group[1]}
    return origins.pop() if len(origins) == 1 else ""
