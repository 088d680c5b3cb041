"""How many images are enough, and how many at once: memory, disk and time stay bounded however large the images are.

A layer that sees many positions an image learns from fewer images; what the counts below give for 32x32 images is what
the figures in the documents were measured with.
"""

import math
from collections.abc import Sequence
from typing import TypeVar

from modeltree.network import FLOAT_BYTES, NetworkSpec
from transforms import Network, Unit

T = TypeVar("T")

_UNIT_BYTES = 256 * 2**20  # of a unit's inputs and outputs, for all images that it is distilled on
_SAMPLE_BYTES = 64 * 2**20
_WAVE_BYTES = 3 * 2**29
_CUT_BYTES = 2**20  # of what is kept an image at a cut, to go on from
_STEP_POSITIONS = 2**16
_FEWEST, _MOST_SAMPLES = 16, 512
_PROBE_MACS, _FEWEST_PROBES = 160e9, 256


def probe_count(spec: NetworkSpec, offered: int) -> int:
    """How many of the images offered each variant is judged on, by what the network costs."""
    return min(offered, max(_FEWEST_PROBES, int(_PROBE_MACS // max(spec.macs(), 1))))


def unit_bytes(unit: Unit) -> int:
    """Of a unit's input and output for one image."""
    return FLOAT_BYTES * (math.prod(unit.in_shape) + math.prod(unit.out_shape))


def unit_images(unit: Unit, offered: int) -> int:
    """How many of the images offered a unit's variants are distilled on."""
    return min(offered, max(_FEWEST, _UNIT_BYTES // unit_bytes(unit)))


def sample_images(unit: Unit) -> int:
    """How many images the start of a variant looks at."""
    return max(_FEWEST // 2, min(_MOST_SAMPLES, _SAMPLE_BYTES // unit_bytes(unit)))


def step_images(unit: Unit, most: int) -> int:
    """How many images a step of distillation takes: as many as have some 65 000 positions, `most` at most."""
    positions = math.prod(unit.in_shape[1:] if len(unit.in_shape) == 3 else unit.in_shape[:-1])
    return max(4, min(most, _STEP_POSITIONS // max(positions, 1)))


def first_place(network: Network, unit: Unit) -> int:
    """The cut in front of a unit from which its effect is computed: the last that is small enough to keep."""
    spec = network.spec
    segment = next(s for s, items in enumerate(spec.segments) if any(spec.items[i].unit == unit.index for i in items))
    small = (p for p in range(segment, 0, -1) if FLOAT_BYTES * math.prod(spec.places[p].shape) <= _CUT_BYTES)
    return next(small, 0)


def waves(
    network: Network, tasks: Sequence[tuple[int, T]], images: int, probes: int
) -> list[list[tuple[int, T]]]:  # fmt: skip
    """Tasks, each a unit and what is done to it, divided so that the features of each part fit on disk together."""
    parts: list[list[tuple[int, T]]] = []
    taken, units, places = 0, set[int](), set[int]()
    for task in sorted(tasks, key=lambda task: task[0]):
        unit = network.units[task[0]]
        place = first_place(network, unit)
        more = 0
        if unit.index not in units:
            more += unit_bytes(unit) * (unit_images(unit, images) + unit_images(unit, probes))
        if place not in places:
            more += FLOAT_BYTES * math.prod(network.spec.places[place].shape) * probes
        if not parts or taken + more > _WAVE_BYTES:
            parts.append([])
            taken, units, places = 0, set(), set()
        parts[-1].append(task)
        taken, units, places = taken + more, units | {unit.index}, places | {place}
    return parts
