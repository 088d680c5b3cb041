"""Small search problems from random tables: pruning-like effects between neighbours, and a span like F3's."""

import dataclasses
import itertools
from typing import NamedTuple

import numpy as np

from modeltree.layers import LayerSpec
from nas.treesearch.problem import (
    ABSORBED,
    CONFIDENT,
    EXIT,
    HAND,
    ON,
    Block,
    Element,
    Ending,
    Plan,
    Problem,
    UnitTable,
    complete_tree,
)


class Size(NamedTuple):
    """levels and types are N and K; units per block, options per unit beside `keep`; with `ends`, exits and codes."""

    levels: int = 2
    types: int = 2
    units: int = 2
    options: int = 1
    cap: int = 40
    ends: bool = False


def layer(channels=8, op="conv"):
    if op == "fc":
        return LayerSpec(op="fc", in_channels=channels, out_channels=10)
    return LayerSpec(
        op=op, in_channels=channels, out_channels=channels, out_height=8, out_width=8, kernel=(3, 3), padding=(1, 1)
    )


def table(rng, unit, front, options, *, chained):
    """A unit of `options` beside keep; the first of a pruned front makes this one cheaper where `chained`."""
    own_ms = np.concatenate([[rng.uniform(5, 10)], rng.uniform(1, 8, options)])
    pair_ms = np.tile(own_ms, (front, 1))
    if chained and front > 1:
        pair_ms[1] *= rng.uniform(0.3, 0.8)
    damage = np.concatenate([[0], rng.integers(0, 16, options)])
    labels = ("keep", *(f"made{unit}@{i + 1}" for i in range(options)))
    return UnitTable(
        unit=unit, layer=layer(8 * (unit + 1)), labels=labels, damage=damage, pair_ms=pair_ms,
        last_ms=np.zeros(options + 1),
    )  # fmt: skip


def spanned(rng, unit, front):
    """Two units of which the first has an option that makes the second superfluous: complete only with it behind."""
    first = UnitTable(
        unit=unit, layer=layer(64, "fc"), labels=("keep", "gap"), damage=np.array([0, int(rng.integers(1, 12))]),
        pair_ms=np.tile([rng.uniform(6, 9), rng.uniform(0.5, 2)], (front, 1)), last_ms=np.array([0.0, np.inf]),
    )  # fmt: skip
    second = UnitTable(
        unit=unit + 1, layer=layer(32, "fc"), labels=("keep", "svd", ABSORBED), damage=np.array([0, 3, 0]),
        pair_ms=np.array([[4.0, rng.uniform(1, 3), np.inf], [np.inf, np.inf, 0.0]]), last_ms=np.zeros(3),
    )  # fmt: skip
    return [first, second]


def endings(rng, places, size):
    """A plain hand-over at every place and, with `ends`, a coded one, an exit, and one by confidence at the end."""
    cloud_ms, nothing = np.sort(rng.uniform(0, 3, places))[::-1], np.zeros(size.types)
    transfer_ms = np.outer(np.linspace(3, 0.7, size.types), rng.uniform(2, 25, places))
    found = []
    for place in range(places):
        at = [Ending(kind=HAND, transfer_ms=transfer_ms[:, place], cloud_ms=float(cloud_ms[place]))]
        if size.ends:
            at.append(
                Ending(
                    kind=HAND,
                    device_ms=0.4,
                    transfer_ms=transfer_ms[:, place] / 2,
                    bits=4,
                    cloud_ms=1.0,
                    damage=int(rng.integers(1, 9)),
                )
            )
            exits = Ending(kind=EXIT, exit=1, device_ms=0.7, transfer_ms=nothing, damage=int(rng.integers(4, 30)))
            at += [exits] if place % 2 else []
        found.append(tuple(at))
    on = [Ending(kind=ON, transfer_ms=nothing)]
    if size.ends:
        on.append(
            Ending(
                kind=CONFIDENT,
                exit=1,
                device_ms=0.7,
                transfer_ms=nothing,
                rate=rng.uniform(0, 0.9),
                loss=rng.uniform(0, 9),
            )
        )
    return (*found, tuple(on))


def block(rng, start, first_unit, size, *, ends):
    """One unit a segment, with glue in between; with `ends`, an F3-like pair of units closes it."""
    units = []
    for i in range(size.units - 2 if ends else size.units):
        front = len(units[-1].labels) if units else 1
        units.append(table(rng, first_unit + i, front, size.options, chained=bool(units)))
    if ends:
        units += spanned(rng, first_unit + len(units), len(units[-1].labels) if units else 1)
    places = len(units) + 1  # the last segment is glue alone
    elements = [Element(segment=i, layer=unit.layer, is_unit=True) for i, unit in enumerate(units)]
    elements.append(Element(segment=len(units), layer=layer(8, "pool"), is_unit=False))
    return Block(
        start=start,
        elements=tuple(elements),
        units=tuple(units),
        unit_segment=tuple(range(len(units))),
        glue_ms=np.concatenate([[0.0], np.cumsum(rng.uniform(0, 0.5, places))]),
        endings=endings(rng, places, size),
    )


def slower_link(problem, added_ms):
    """The same problem with every hand-over taking so much longer."""

    def slower(ending):
        later = ending.transfer_ms + added_ms if ending.kind == HAND else ending.transfer_ms
        return dataclasses.replace(ending, transfer_ms=later)

    blocks = tuple(
        dataclasses.replace(block, endings=tuple(tuple(map(slower, at)) for at in block.endings))
        for block in problem.blocks
    )
    return dataclasses.replace(problem, blocks=blocks)


def random_problem(seed, size, *, markov=False, single_root=False):
    """A problem whose last block ends in an F3-like span if it has at least two units."""
    rng = np.random.default_rng(seed)
    blocks, start, unit = [], 0, 0
    for level in range(size.levels):
        blocks.append(block(rng, start, unit, size, ends=level == size.levels - 1 and size.units >= 2))
        start += blocks[-1].places
        unit += len(blocks[-1].units)
    blocks[-1] = dataclasses.replace(blocks[-1], endings=(*blocks[-1].endings[:-1], blocks[-1].endings[-1][:1]))
    initial, transition = np.full(size.types, 1 / size.types), np.full((size.types, size.types), 1 / size.types)
    if markov:
        initial, transition = rng.dirichlet(np.ones(size.types)), rng.dirichlet(np.ones(size.types), size.types)
    return Problem(
        blocks=tuple(blocks),
        shape=complete_tree(size.levels, size.types, single_root=single_root),
        bandwidth_mbps=tuple(np.linspace(1, 10, size.types)),
        initial=initial,
        transition=transition,
        accuracy=92.0 - 40.0 * (np.arange(size.cap + 1) / size.cap) ** 1.5,
        accuracy_worth=2.0,
        latency_worth=0.6,
        constant=200.0,
    )


def every_tree(problem, plans_of_block):
    """Every tree of a problem, given all plans of each block; for problems of a few nodes."""
    shape = problem.shape

    def below(node):
        """Every way to fill in a node and all below it: node -> plan."""
        level = shape.level[node]
        for plan in plans_of_block[level]:
            if plan.partition < problem.blocks[level].places or not shape.children[node]:
                yield {node: plan}
                continue
            for parts in itertools.product(*([*below(child)] for child in shape.children[node])):
                yield {node: plan} | {n: p for part in parts for n, p in part.items()}

    for parts in itertools.product(*([*below(root)] for root in range(shape.first[1]))):
        chosen = {n: p for part in parts for n, p in part.items()}
        yield [chosen.get(node) for node in range(len(shape.parent))]


def is_feasible(problem, plans):
    """Whether a tree has plans exactly where nodes exist, and every block can be run."""
    for node, plan in enumerate(plans):
        level, above = problem.shape.level[node], problem.shape.parent[node]
        exists = above < 0 or (plans[above] is not None and plans[above].partition == problem.blocks[level - 1].places)
        if (plan is not None) != exists:
            return False
        if plan is not None and not (
            len(plan.options) == problem.blocks[level].device_units(plan.partition)
            and np.isfinite(problem.blocks[level].device_ms(plan))
        ):
            return False
    return True


def kept_tree(problem):
    """Nothing is changed and nothing handed over."""
    shape = problem.shape
    return [
        Plan(problem.blocks[level].places, (0,) * len(problem.blocks[level].units)) for level in shape.level
    ]  # fmt: skip
