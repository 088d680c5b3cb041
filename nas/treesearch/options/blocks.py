"""The geometry of a block: its units and places in order, and what lies between them."""

import dataclasses
from collections.abc import Collection

import numpy as np

from modeltree.profiles import DeviceProfile
from nas.treesearch.options.endings import EndingOptions
from nas.treesearch.options.units import UnitOptions
from nas.treesearch.problem import Block, Element, UnitTable
from transforms import Network


def block_of(
    network: Network, device: DeviceProfile, cuts: Collection[int], units: UnitOptions, endings: EndingOptions,
    start: int, stop: int,
) -> Block:  # fmt: skip
    """The block between two places. Blocks must be made in the order of the network.

    cuts : places at which the network is sliced; behind one, a unit's cost does not depend on the unit in front.
    """
    spec = network.spec
    elements: list[Element] = []
    tables: list[UnitTable] = []
    unit_segment: list[int] = []
    glue_ms = [0.0]
    front: int | None = None  # behind a cut: nothing reaches over one
    for segment in range(start, stop):
        if segment in cuts:
            front = None
        items = [spec.items[i] for i in spec.segments[segment]]
        called_ms = device.call_ms if segment == start else 0.0
        glued_ms = sum(device.compute_ms(item.layers) for item in items if item.unit is None)
        glue_ms.append(glue_ms[-1] + called_ms + glued_ms)
        if all(item.unit is None for item in items):
            elements.append(Element(segment=segment - start, layer=items[-1].layers[-1], is_unit=False))
        barrier = min((cut for cut in cuts if cut > segment), default=len(spec.segments))
        for unit in (item.unit for item in items if item.unit is not None):
            table = units.table(unit, front, barrier)
            if tables and front is None:  # the same for every option of the unit in front
                every = len(tables[-1].labels)
                rows, *others = (np.repeat(times, every, axis=0) for times in (table.pair_ms, *table.format_ms))
                table = dataclasses.replace(table, pair_ms=rows, format_ms=tuple(others))
            front = unit
            tables.append(table)
            unit_segment.append(segment - start)
            elements.append(Element(segment=segment - start, layer=table.layer, is_unit=True))
    return Block(
        start=start, elements=tuple(elements), units=tuple(tables), unit_segment=tuple(unit_segment),
        glue_ms=np.array(glue_ms), endings=(*map(endings.at, range(start, stop)), endings.behind(stop)),
    )  # fmt: skip
