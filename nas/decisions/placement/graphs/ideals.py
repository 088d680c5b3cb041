"""Ideals of an operator graph: the sets of groups that hold everything their members read from.

A contiguous piece of the graph (no path leaves it and comes back) is the difference of two ideals, so a chain of ideals
from the empty one to the full one is a contiguous split [Tarnawski 2020, sec. 5.1].

What a piece pays for its nets follows from its two ideals alone. With C[I, e] the number of net e's groups inside I,
and B(I) the nets that I divides (0 < C[I, e] < |e|), the piece between J and I cuts the nets of B(J) and of B(I), each
once; a net in both is cut only if some of its groups lie between J and I:

    transfer(J, I) = c(B(J)) + c(B(I)) - sum over e in B(I) of c_e ([C[J, e] > 0] + [C[J, e] = C[I, e]])
"""

from dataclasses import dataclass

import numpy as np

from modeltree.errors import GraphError
from nas.decisions.placement.graphs.contraction import Groups

IDEALS = 150_000
"""More ideals than this are not enumerated."""


class TooManyIdeals(GraphError):
    """A graph too wide for the exact planner."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Ideals:
    """All ideals of a graph, the empty one first and the full one last, sorted by accelerator time.

    bits : (ideals, words), uint64; one bit a group.
    inside : (ideals, nets + 1), uint16; how many of a net's groups lie inside. The last net is a dummy.
    cost : (nets + 1,); what a net costs, 0 for the dummy.
    divided : (ideals, widest), int32; the nets each ideal divides, padded with the dummy.
    divided_cost, accelerator_time, cpu_time, size : (ideals,), sums over the divided nets, and over the groups inside.
    """

    bits: np.ndarray
    inside: np.ndarray
    cost: np.ndarray
    divided: np.ndarray
    divided_cost: np.ndarray
    accelerator_time: np.ndarray
    cpu_time: np.ndarray
    size: np.ndarray

    def __len__(self) -> int:
        return len(self.bits)

    def contains(self, small: np.ndarray, large: np.ndarray) -> np.ndarray:
        """Whether ideal `small[k]` lies in ideal `large[k]`; both (pairs,)."""
        within = np.ones(len(small), bool)
        for word in range(self.bits.shape[1]):
            within &= (self.bits[small, word] & ~self.bits[large, word]) == 0
        return within

    def transfer(self, small: np.ndarray, large: np.ndarray) -> np.ndarray:
        """What the piece between ideals `small[k]` and `large[k]` pays for its nets; both (pairs,)."""
        twice = np.zeros(len(small))
        for column in range(self.divided.shape[1]):
            net = self.divided[large, column]
            below = self.inside[small, net]
            twice += self.cost[net] * ((below > 0).astype(float) + (below == self.inside[large, net]))
        return self.divided_cost[small] + self.divided_cost[large] - twice

    def members(self, ideals: np.ndarray, groups: int) -> np.ndarray:
        """(ideals, groups), bool: which groups lie in each."""
        rows = np.ascontiguousarray(self.bits[ideals]).view(np.uint8)
        return np.unpackbits(rows, axis=1, bitorder="little")[:, :groups].astype(bool)

    def piece(self, small: int, large: int) -> list[int]:
        """The groups between two ideals."""
        left = self.bits[large] & ~self.bits[small]
        return np.flatnonzero(np.unpackbits(left.view(np.uint8), bitorder="little")).tolist()


def enumerate_ideals(groups: Groups, *, limit: int = IDEALS) -> Ideals:
    """Every ideal of the graph.

    Raises
    ------
    TooManyIdeals : there are more than `limit`.
    """
    return _table(groups, _masks(groups, limit))


def sample_ideals(groups: Groups, rng: np.random.Generator, *, orders: int = 64) -> Ideals:
    """The ideals along some orders in which the groups can run, for graphs too wide to hold all of them."""
    needs, readers = _neighbours(groups)
    masks = {0}
    for depth_first in np.linspace(0, 1, orders):
        ideal, ready = 0, [group for group in range(len(groups)) if not needs[group]]
        while ready:
            group = ready.pop() if rng.random() < depth_first else ready.pop(int(rng.random() * len(ready)))
            ideal |= 1 << group
            masks.add(ideal)
            ready += [one for one in readers[group] if needs[one] & ~ideal == 0]
    return _table(groups, list(masks))


def _table(groups: Groups, masks: list[int]) -> Ideals:
    count = len(groups)
    words = max(1, -(-count // 64))
    raw = b"".join(mask.to_bytes(8 * words, "little") for mask in masks)
    bits = np.frombuffer(raw, np.uint64).reshape(len(masks), words)
    member = np.unpackbits(bits.view(np.uint8), axis=1, bitorder="little")[:, :count]
    times = member @ groups.accelerator_time
    order = np.lexsort((member.sum(1), times))
    return _measured(groups, bits[order], member[order])


def _masks(groups: Groups, limit: int) -> list[int]:
    needs, readers = _neighbours(groups)
    first = [group for group in range(len(groups)) if not needs[group]]
    ready_of: dict[int, tuple[int, ...]] = {0: tuple(first)}
    waiting = [0]
    while waiting:
        ideal = waiting.pop()
        ready = ready_of[ideal]
        for group in ready:
            grown = ideal | 1 << group
            if grown in ready_of:
                continue
            new = tuple(one for one in readers[group] if needs[one] & ~grown == 0)
            ready_of[grown] = tuple(one for one in ready if one != group) + new
            waiting.append(grown)
        if len(ready_of) > limit:
            raise TooManyIdeals(
                f"the graph has more than {limit} ideals, the limit of the exact planner: draw nodes together with "
                "colorClass"
            )
    return list(ready_of)


def _neighbours(groups: Groups) -> tuple[list[int], list[list[int]]]:
    """What each group reads from, as a mask, and who reads it."""
    needs: list[int] = [0] * len(groups)
    readers: list[list[int]] = [[] for _ in range(len(groups))]
    for a, b in groups.edges:
        needs[b] |= 1 << a
        readers[a].append(b)
    return needs, readers


def _measured(groups: Groups, bits: np.ndarray, member: np.ndarray) -> Ideals:
    nets = len(groups.nets)
    belongs = np.zeros((len(groups), nets + 1), np.float32)
    cost = np.zeros(nets + 1)
    for index, (touched, price) in enumerate(groups.nets):
        belongs[list(touched), index] = 1
        cost[index] = price
    width = belongs.sum(0)
    inside = (member.astype(np.float32) @ belongs).astype(np.uint16)
    cut = (inside > 0) & (inside < width)
    widest = max(1, int(cut.sum(1).max()))
    divided = np.full((len(bits), widest), nets, np.int32)
    rows, columns = np.nonzero(cut)
    place = np.arange(len(rows)) - np.searchsorted(rows, rows)
    divided[rows, place] = columns
    too_large = 2 * groups.graph.accelerator_bytes + 1
    return Ideals(
        bits=np.ascontiguousarray(bits),
        inside=inside,
        cost=cost,
        divided=divided,
        divided_cost=cut @ cost,
        accelerator_time=member @ np.where(groups.supported, groups.accelerator_time, 0.0),
        cpu_time=member @ groups.cpu_time,
        size=member @ np.where(groups.supported, groups.size, too_large),
    )
