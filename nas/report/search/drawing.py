"""The model tree as a drawing: forks from left to right, a card per node, the cloud and the leaves marked.

A fork's colour says how fast its link is (orange is slowest, blue fastest), the width of a line how likely it is.
"""

import html
from dataclasses import dataclass

from markupsafe import Markup

from modeltree.render import block_text, bytes_text, layer_actions, layer_lines, ms_text, when_text
from modeltree.tree import ModelTree, Node

CARD, GAP, START, ROOM = 252, 62, 116, 18
"""Widths of a card, of the space between levels and of the start; least distance between two cards."""

MAX_LINES = 9
"""Lines of layers on a card; the rest is counted, and stands in the tree's text below the drawing."""

LINE, MONO, HANDOVER, LEAF = 16, 6.65, 62, 52
SLOW_HUE, FAST_HUE = 24, 214

_CLOUD = "M4,12a4,4 0 0 1 .6,-7.9a5.4,5.4 0 0 1 10.2,-1a4.5,4.5 0 0 1 1.6,8.9z"


@dataclass(frozen=True, kw_only=True)
class _Card:
    node: Node
    lines: list[tuple[str, str]]
    height: float
    x: float
    y: float


def draw_tree(tree: ModelTree) -> Markup:
    """The tree as SVG, at its natural size."""
    cards: dict[int, _Card] = {}
    bottom = 8.0
    for root in tree.roots:
        bottom = _lay_out(tree, root, bottom, cards) + ROOM
    chances = tree.chances()
    width = max(card.x for card in cards.values()) + CARD + 12
    middles = [cards[root].y + cards[root].height / 2 for root in tree.roots]
    centre = (middles[0] + middles[-1]) / 2
    parts = []
    for card in cards.values():
        parent = cards.get(-1 if card.node.parent is None else card.node.parent)
        origin = (START, centre) if parent is None else (parent.x + CARD, parent.y + parent.height / 2)
        parts.append(_edge(tree, card, origin, chances[card.node.id], chances[card.node.parent or 0]))
    parts += _start(tree, centre)
    parts += [_card(tree, card) for card in cards.values()]
    height = max(card.y + card.height for card in cards.values()) + 10
    return Markup(
        f'<svg class="tree" width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'role="img" aria-label="{_escape(f"model tree with {len(tree.leaves())} leaves; as text below")}">'
        + "".join(parts)
        + "</svg>"
    )


def _text(x: float, y: float, content: object, classes: str) -> str:
    """A piece of text; the content is escaped here."""
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{classes}">{_escape(content)}</text>'


def _escape(content: object) -> str:
    return html.escape(str(content), quote=True)


def _lay_out(tree: ModelTree, number: int, top: float, cards: dict[int, _Card]) -> float:
    """Place a node and all below it from `top` on; returns where they end."""
    node = tree.nodes[number]
    lines = layer_actions(node) or [(layer_lines(node)[0], "")]
    if len(lines) > MAX_LINES:
        lines = [*lines[: MAX_LINES - 1], (f"… and {len(lines) - MAX_LINES + 1} lines more", "")]
    height = 60.0 + LINE * len(lines) + (HANDOVER if node.handover else 0) + (LEAF if node.leaf else 0)
    bottom = top
    for child in node.children:
        bottom = _lay_out(tree, child, bottom, cards) + ROOM
    middles = [cards[child].y + cards[child].height / 2 for child in node.children]
    y = (middles[0] + middles[-1]) / 2 - height / 2 if middles else top
    shift = max(0.0, top - y)
    cards[number] = _Card(node=node, lines=lines, height=height, x=START + GAP + node.level * (CARD + GAP), y=y + shift)
    return max(bottom - ROOM if node.children else top, y + shift + height)


def _start(tree: ModelTree, centre: float) -> list[str]:
    shape = "×".join(map(str, tree.input_shape))
    return [
        f'<rect class="start" x="4" y="{centre - 31:.1f}" width="{START - 4}" height="62" rx="12"/>',
        _text(START / 2 + 2, centre - 9, _cut(tree.base, 15), "strong middle"),
        _text(START / 2 + 2, centre + 8, _cut(shape, 15), "small middle"),
        _text(START / 2 + 2, centre + 23, "measure the link", "small middle"),
    ]


def _edge(tree: ModelTree, card: _Card, origin: tuple[float, float], chance: float, before: float) -> str:
    (x0, y0), x1, y1 = origin, card.x, card.y + card.height / 2
    bend = (x1 - x0) / 2
    share = chance / (before if card.node.parent is not None and before > 0 else 1.0)
    path = f"M{x0:.1f},{y0:.1f}C{x0 + bend:.1f},{y0:.1f} {x1 - bend:.1f},{y1:.1f} {x1:.1f},{y1:.1f}"
    width = 1.5 + 5 * chance
    label = _text((x0 + x1) / 2, (y0 + y1) / 2 + 4, f"{100 * share:.0f} %", "small middle halo")
    return f'<path class="edge" style="{_hue(tree, card.node)};stroke-width:{width:.1f}" d="{path}"/>{label}'


def _card(tree: ModelTree, card: _Card) -> str:
    node, x, y = card.node, card.x, card.y
    full = "\n".join([when_text(tree, node), *layer_lines(node)])
    parts = [
        f'<g class="node" style="{_hue(tree, node)}"><title>{_escape(full)}</title>',
        f'<rect class="card" x="{x}" y="{y:.1f}" width="{CARD}" height="{card.height:.1f}" rx="10"/>',
        f'<path class="fork" d="M{x},{y + 26:.1f}v-16a10,10 0 0 1 10,-10h{CARD - 20}a10,10 0 0 1 10,10v16z"/>',
        _text(x + 12, y + 17.5, _cut(when_text(tree, node), 38), "forkname"),
        _text(x + 12, y + 45, block_text(node).capitalize(), "strong"),
        _text(x + CARD - 12, y + 45, f"{ms_text(node.device_ms)} on device", "small end"),
    ]
    at = y + 63
    for layers, what in card.lines:
        parts.append(_layer_line(x + 12, at, layers, what))
        at += LINE
    at -= 6
    if node.handover is not None:
        parts.append(_handover(node, x, at))
        at += HANDOVER
    if node.leaf is not None:
        parts.append(_leaf(node, x, at))
    return "".join(parts) + "</g>"


def _layer_line(x: float, y: float, layers: str, what: str) -> str:
    room = int((CARD - 24) / MONO)
    kept = " kept" if what.startswith("keep") or not what else ""
    what = _cut(what.replace(" (", " ×").removesuffix(" layers)"), room - 8)
    left = _text(x, y, _cut(layers, room - len(what) - (2 if what else 0)), "mono")
    return left + _text(x + CARD - 24, y, what, f"mono end action{kept}")


def _handover(node: Node, x: float, y: float) -> str:
    handover = node.handover
    assert handover is not None
    what = "the input image" if handover.place == 0 else f"place {handover.place}"
    shape = "×".join(map(str, handover.shape))
    what += f" to exit {handover.exit}" if handover.exit else ""
    right = x + CARD - 12
    return (
        f'<rect class="cloud" x="{x + 1}" y="{y + 1:.1f}" width="{CARD - 2}" height="{HANDOVER - 2}"/>'
        f'<path class="cloudsign" transform="translate({x + 11},{y + 6:.1f})" d="{_CLOUD}"/>'
        + _text(x + 37, y + 17.5, f"cloud from {what}", "cloudname")
        + _text(right, y + 17.5, bytes_text(handover.bytes), "cloudname end")
        + _text(x + 12, y + 35, _cut(shape, 22), "small")
        + _text(right, y + 35, f"{handover.bits} bits a number", "small end")
        + _text(x + 12, y + 52, f"send {ms_text(node.transfer_ms)}", "small")
        + _text(right, y + 52, f"run {ms_text(node.cloud_ms)}", "small end")
    )


def _leaf(node: Node, x: float, y: float) -> str:
    leaf = node.leaf
    assert leaf is not None
    columns = (
        (12.0, "", ms_text(leaf.latency_ms), "predicted"),
        (CARD / 2 + 4, " middle", f"{leaf.accuracy:.2f} %", leaf.accuracy_origin),
        (CARD - 12.0, " end", f"{100 * leaf.chance:.3g} %", "chance"),
    )
    line = f'<line class="rule" x1="{x + 12}" x2="{x + CARD - 12}" y1="{y + 5:.1f}" y2="{y + 5:.1f}"/>'
    return ("" if node.handover else line) + "".join(
        _text(x + dx, y + 25, value, "value" + anchor) + _text(x + dx, y + 40, name, "small" + anchor)
        for dx, anchor, value, name in columns
    )


def _hue(tree: ModelTree, node: Node) -> str:
    """The style that colours a fork by the speed of its link; grey where it serves all types, or none."""
    count = tree.types.count
    if len(node.fork.types) in (0, count):
        return "--h:220;--s:8%"
    middle = sum(node.fork.types) / len(node.fork.types) / (count - 1)
    return f"--h:{SLOW_HUE + (FAST_HUE - SLOW_HUE) * middle:.0f};--s:72%"


def _cut(content: str, room: int) -> str:
    return content if len(content) <= room else content[: max(1, room - 1)] + "…"
