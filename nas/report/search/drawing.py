"""The model tree as a drawing: forks from left to right, a card per node, the cloud and the leaves marked.

A fork's colour says how fast its link is (orange is slowest, blue fastest), the width of a line how likely it is. Here
is what stands where; how it looks is in `pieces/templates/tree.svg`.
"""

from dataclasses import dataclass

from markupsafe import Markup

from modeltree.tree import Handover, Leaf, ModelTree, Node
from modeltree.tree.render import block_text, bytes_text, layer_actions, layer_lines, ms_text, when_text
from nas.report.pieces.blocks import render

CARD, GAP, START, ROOM = 252, 62, 116, 18
"""Widths of a card, of the space between levels and of the start; least distance between two cards."""

MAX_LINES = 9
"""Lines of layers on a card; the rest is counted, and stands in the tree's text below the drawing."""

LINE, MONO, HANDOVER, LEAF = 16, 6.65, 62, 52
SLOW_HUE, FAST_HUE = 24, 214


@dataclass(frozen=True, kw_only=True)
class _Place:
    """Where a node's card lies, and its lines of layers: (layers, what is done to them)."""

    node: Node
    lines: list[tuple[str, str]]
    height: float
    x: float
    y: float

    @property
    def middle(self) -> float:
        return self.y + self.height / 2


def draw_tree(tree: ModelTree) -> Markup:
    """The tree as SVG, at its natural size."""
    places: dict[int, _Place] = {}
    bottom = 8.0
    for root in tree.roots:
        bottom = _lay_out(tree, root, bottom, places) + ROOM
    centre = (places[tree.roots[0]].middle + places[tree.roots[-1]].middle) / 2
    return render(
        "tree.svg", cards=[_card(tree, places, place, centre) for place in places.values()], centre=centre,
        label=f"model tree with {len(tree.leaves())} leaves; as text below",
        width=f"{max(place.x for place in places.values()) + CARD + 12:.0f}",
        height=f"{max(place.y + place.height for place in places.values()) + 10:.0f}",
        base=_cut(tree.base.rsplit("/", 1)[-1], 15), shape=_cut(_shape(tree.input_shape), 15),
        wide=CARD, start=START, line=LINE,
    )  # fmt: skip


def _lay_out(tree: ModelTree, number: int, top: float, places: dict[int, _Place]) -> float:
    """Place a node and all below it from `top` on; returns where they end."""
    node = tree.nodes[number]
    lines = layer_actions(node) or [(layer_lines(node)[0], "")]
    if len(lines) > MAX_LINES:
        lines = [*lines[: MAX_LINES - 1], (f"… and {len(lines) - MAX_LINES + 1} lines more", "")]
    height = 60.0 + LINE * len(lines) + (HANDOVER if node.handover else 0) + (LEAF if node.leaf else 0)
    bottom = top
    for child in node.children:
        bottom = _lay_out(tree, child, bottom, places) + ROOM
    middles = [places[child].middle for child in node.children]
    y = max(top, (middles[0] + middles[-1]) / 2 - height / 2) if middles else top
    places[number] = _Place(node=node, lines=lines, height=height, x=START + GAP + node.level * (CARD + GAP), y=y)
    return max(bottom - ROOM if node.children else top, y + height)


def _card(tree: ModelTree, places: dict[int, _Place], place: _Place, centre: float) -> dict[str, object]:
    """What the template is told of a node."""
    node, chances = place.node, tree.chances()
    x, y, before = float(START), centre, 1.0
    if node.parent is not None:
        parent = places[node.parent]
        x, y, before = parent.x + CARD, parent.middle, chances[node.parent] or 1.0
    bend = (place.x - x) / 2
    return {
        "node": node, "x": place.x, "y": place.y, "height": place.height, "hue": _hue(tree, node),
        "chance": chances[node.id], "share": chances[node.id] / before,
        "path": f"M{x:.1f},{y:.1f}C{x + bend:.1f},{y:.1f} {place.x - bend:.1f},{place.middle:.1f} "
                f"{place.x:.1f},{place.middle:.1f}",
        "label_x": (x + place.x) / 2, "label_y": (y + place.middle) / 2 + 4,
        "full": "\n".join([when_text(tree, node), *layer_lines(node)]), "when": _cut(when_text(tree, node), 38),
        "blocks": block_text(node).capitalize(), "lines": [_line(*line) for line in place.lines],
        "handover": _handover(node.handover) if node.handover else None, "leaf": _leaf(node.leaf) if node.leaf else (),
    }  # fmt: skip


def _line(layers: str, what: str) -> tuple[str, str, bool]:
    """Layers, what is done to them, and whether that is nothing; cut to the width of a card."""
    room = int((CARD - 24) / MONO)
    kept = what.startswith("keep") or not what
    what = _cut(what.replace(" (", " ×").removesuffix(" layers)"), room - 8)
    return _cut(layers, room - len(what) - (2 if what else 0)), what, kept


def _handover(handover: Handover) -> dict[str, str]:
    place = "image" if handover.place == 0 else f"place {handover.place}"
    return {
        "what": f"cloud from {place}" + (f", exit {handover.exit}" if handover.exit else ""),
        "bytes": bytes_text(handover.bytes), "bits": handover.code or f"{handover.bits} bits a number",
        "shape": _cut(_shape(handover.shape), 22),
    }  # fmt: skip


def _leaf(leaf: Leaf) -> tuple[tuple[float, str, str, str], ...]:
    return (
        (12.0, "", ms_text(leaf.latency_ms), "predicted"),
        (CARD / 2 + 4, " middle", f"{leaf.accuracy:.2f} %", leaf.accuracy_origin),
        (CARD - 12.0, " end", f"{100 * leaf.chance:.3g} %", "chance"),
    )


def _hue(tree: ModelTree, node: Node) -> str:
    """The style that colours a fork by the speed of its link; grey where it serves all types, or none."""
    count = tree.types.count
    if len(node.fork.types) in (0, count):
        return "--h:220;--s:8%"
    middle = sum(node.fork.types) / len(node.fork.types) / (count - 1)
    return f"--h:{SLOW_HUE + (FAST_HUE - SLOW_HUE) * middle:.0f};--s:72%"


def _shape(sizes: tuple[int, ...]) -> str:
    return "×".join(map(str, sizes))


def _cut(content: str, room: int) -> str:
    return content if len(content) <= room else content[: max(1, room - 1)] + "…"
