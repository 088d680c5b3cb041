"""Draws docs/architecture.svg: every room of every package on its floor, and who imports whom.

The rooms and arrows come from the import graph, the floors from the layers in pyproject.toml. Between rooms of one
package, arrows that follow from others are left out (the transitive reduction); between packages there is one for all.

    python benchmarks/picture.py [docs/architecture.svg]          (or: make picture)
"""

import argparse
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

import grimp
import networkx as nx

ROOT = Path(__file__).parents[1]
WIDTH, ROW, BOX_HEIGHT, PAD = 1180, 74, 30, 14
LETTER, SHIFT = 7.4, 90
BETWEEN = (
    ("nas.names", "transforms"), ("nas.names", "compile"), ("nas.names", "runtime.session"),
    ("transforms", "modeltree"), ("compile", "modeltree"), ("runtime.images", "modeltree"),
)  # fmt: skip
"""Arrows between packages, drawn from the lowest floor of one to the highest of the other."""

PACKAGES = ("nas", "transforms", "compile", "runtime", "modeltree")
STYLE = """
text{font:13px system-ui,sans-serif;fill:#1b1f24}.pkg{font-weight:600}rect{fill:#fff;stroke:#7b8794}
.nas{fill:#e8f0fe}.runtime{fill:#e6f4ea}.compile{fill:#fef3e0}.transforms{fill:#f3e8fd}.modeltree{fill:#eceff1}
path{fill:none;stroke:#9aa5b1;stroke-width:1.1}marker path{fill:#9aa5b1;stroke:none}
@media(prefers-color-scheme:dark){text{fill:#e6edf3}rect{stroke:#8b98a5}.nas{fill:#1d2b4a}.runtime{fill:#17351f}
.compile{fill:#3b2b10}.transforms{fill:#2f1d40}.modeltree{fill:#2a2f34}path{stroke:#5c6773}marker path{fill:#5c6773}}
"""


def floors(package: str) -> list[list[str]]:
    """The floors of a package from top to bottom, as its contract says; one floor where there is none."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    for contract in contracts:
        if contract.get("containers") == [package]:
            return [
                [f"{package}.{room.strip().strip('()')}" for room in re.split(r"[|:]", layer)]
                for layer in contract["layers"]
            ]
    return []


def room_of(module: str, rooms: set[str]) -> str | None:
    """The room that a module lies in; a package without floors is one room."""
    return next((room for room in rooms if module == room or module.startswith(room + ".")), None)


def graph(rooms: Sequence[str]) -> nx.DiGraph:
    """Who imports whom, between rooms of one package; what follows from other arrows is left out."""
    imports = grimp.build_graph(*PACKAGES, cache_dir=None)
    known = set(rooms)
    drawn: nx.DiGraph = nx.DiGraph()
    drawn.add_nodes_from(rooms)
    for module in imports.modules:
        own = room_of(module, known)
        for imported in imports.find_modules_directly_imported_by(module) if own else ():
            other = room_of(imported, known)
            if other and other != own and other.split(".")[0] == own.split(".")[0]:
                drawn.add_edge(own, other)
    reduced = nx.transitive_reduction(drawn)
    reduced.add_nodes_from(rooms)
    return reduced


def rows() -> list[list[str]]:
    """Rooms from top to bottom: the floors of nas, then those of runtime beside its neighbours, then modeltree."""
    middle = floors("runtime")
    middle[0] = ["transforms", "compile", *middle[0]]
    return [*floors("nas"), *middle, ["modeltree"]]


def picture(table: Sequence[Sequence[str]], arrows: nx.DiGraph) -> str:
    """The SVG."""
    boxes: dict[str, tuple[float, float, float]] = {}  # room -> left, top, width
    for number, row in enumerate(table):
        widths = [len(_name(room)) * LETTER + 2 * PAD for room in row]
        gap = (WIDTH - sum(widths)) / (len(row) + 1)
        left = gap + (SHIFT if len(row) == 1 and number % 2 else 0)  # so that arrows do not run behind boxes
        for room, width in zip(row, widths, strict=True):
            boxes[room] = (left, 20 + number * ROW, width)
            left += width + gap
    height = 20 + len(table) * ROW
    ends = [*sorted(arrows.edges), *((a, b) for a, b in BETWEEN if a in boxes and b in boxes)]
    lines = [_line(boxes[a], boxes[b]) for a, b in ends]
    drawn = [_box(room, *boxes[room]) for room in boxes]
    arrow = '<marker id="a" viewBox="0 0 6 6" refX="6" refY="3" markerWidth="6" markerHeight="6" orient="auto">'
    head = f'<defs>{arrow}<path d="M0 0 6 3 0 6z"/></marker></defs>'
    size = f'width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}"'
    body = "\n".join([*lines, *drawn])
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>\n<style>{STYLE}</style>\n{head}\n{body}\n</svg>\n'


def _name(room: str) -> str:
    return room.replace(".", "/")


def _line(start: tuple[float, float, float], stop: tuple[float, float, float]) -> str:
    x1, y1 = start[0] + start[2] / 2, start[1] + BOX_HEIGHT
    x2, y2 = stop[0] + stop[2] / 2, stop[1]
    bend = (y2 - y1) / 2
    return (
        f'<path marker-end="url(#a)" d="M{x1:.0f} {y1:.0f} C{x1:.0f} {y1 + bend:.0f} '
        f'{x2:.0f} {y2 - bend:.0f} {x2:.0f} {y2:.0f}"/>'
    )


def _box(room: str, left: float, top: float, width: float) -> str:
    package = room.split(".")[0]
    return (
        f'<rect class="{package}" x="{left:.0f}" y="{top:.0f}" width="{width:.0f}" height="{BOX_HEIGHT}" rx="5"/>'
        f'<text x="{left + width / 2:.0f}" y="{top + 20:.0f}" text-anchor="middle">{_name(room)}</text>'
    )


def main(words: Sequence[str] | None = None) -> Mapping[str, int]:
    """Draw it; returns how many rooms and arrows there are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", nargs="?", type=Path, default=ROOT / "docs" / "architecture.svg")
    out = parser.parse_args(words).out
    table = rows()
    arrows = graph([room for row in table for room in row])
    out.write_text(picture(table, arrows))
    counts = {"rooms": arrows.number_of_nodes(), "arrows": arrows.number_of_edges()}
    print(f"{out}: {counts['rooms']} rooms, {counts['arrows']} arrows")
    return counts


if __name__ == "__main__":
    main()
