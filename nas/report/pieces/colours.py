"""Colours by name: each is a variable of the style sheet, so that the page's light or dark scheme decides."""

import zlib
from collections.abc import Iterable, Mapping

from markupsafe import Markup

from nas.report.pieces.blocks import colour_key

METHODS = {
    "tree": "tree", "branch": "branch", "surgery": "surgery", "device_only": "device", "cloud_jpeg": "jpeg",
    "cloud_raw": "raw", "random": "random", "egreedy": "egreedy", "plain_tree": "faint", "actions": "faint",
    "optimum": "faint",
}  # fmt: skip
"""Variables of the methods that have a colour of their own."""

PARTS = {"device": "device", "encode": "raw", "transfer": "violet", "cloud": "branch", "wait": "faint"}
"""Variables of the parts of a latency."""

BOUND, LINK, SOFT = "var(--bound)", "var(--bandwidth)", "var(--soft)"

_OTHERS = ("branch", "random", "egreedy", "raw", "surgery", "jpeg", "device", "tree")


def colours(names: Iterable[str], known: Mapping[str, str] | None = None) -> dict[str, str]:
    """A CSS colour for every name: its own if `known` (the methods' unless given) has one, else the next spare one."""
    own = METHODS if known is None else known
    listed = list(dict.fromkeys(names))
    spare = [one for one in _OTHERS if one not in {own[name] for name in listed if name in own}] or list(_OTHERS)
    others = [name for name in listed if name not in own]
    variables = {name: spare[others.index(name) % len(spare)] if name in others else own[name] for name in listed}
    return {name: f"var(--{variable})" for name, variable in variables.items()}


def key(name: str) -> str:
    """A name as a field of a chart's data: itself if it is a plain word, else one made from it."""
    return name if name.isidentifier() and name.isascii() else f"other_{zlib.crc32(name.encode()):08x}"


def part_key(parts: Iterable[str]) -> Markup:
    """What the colours of a latency's parts stand for."""
    return colour_key([(f"var(--{PARTS[part]})", part, "") for part in parts])
