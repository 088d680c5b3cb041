"""Number formats as choices of a block: every ending once more in each of them.

A block's format is chosen with what happens behind it, since both are decided once the block's device half is known.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from nas.treesearch.problem import Block


@dataclass(frozen=True, kw_only=True)
class KnownFormats:
    """names : formats on offer beside f32. drops : (start, stop) of a part of the network -> points of accuracy that
    it alone loses in each of them."""

    names: tuple[str, ...] = ()
    drops: Mapping[tuple[int, int], tuple[float, ...]] = field(default_factory=dict)


def in_formats(block: Block, damage: Sequence[int]) -> Block:
    """The block with its endings in every format, those of one ending side by side, the plain one's first.

    The image is handed over before anything is computed: place 0 of the network has no format.

    damage : per format, of the whole block; its first part does its share of units.
    """
    if not damage:
        return block
    endings = []
    for place, at in enumerate(block.endings):
        if block.start + place == 0:
            endings.append(at)
            continue
        share = block.device_units(place) / max(len(block.units), 1)
        copies = [
            (ending, *(replace(ending, form=form, damage=ending.damage + round(share * done))
                       for form, done in enumerate(damage, 1)))
            for ending in at
        ]  # fmt: skip
        endings.append(tuple(one for many in copies for one in many))
    return replace(block, endings=tuple(endings))
