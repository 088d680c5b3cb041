"""A convolution's weights in the order they are read, without the padding of channels.

[out blocks][in blocks][kernel rows][kernel columns][in block][lanes]. Of an input block only the slots up to its last
channel are there, and the last output block has as many lanes as channels: what fills up a vector costs no bytes, and
on the side of the input no time either. A vector of the last output block is loaded with whatever follows it, and the
lanes that hold no channel are made zero where they are stored.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import tirx
from tvm.tirx.script.builder import ir as T

from compile.formats import Format
from compile.graph.layouts import Layout
from compile.graph.stages import Convolution
from compile.vectors import spread

_MOST_RUNS = 4
"""Loops that are written out one after the other; where more are needed, padding is read with weights of zero."""


@dataclass(frozen=True, kw_only=True)
class Depth:
    """The input blocks that outputs are summed over: `repeats` times runs of (blocks, slots of each that are read)."""

    repeats: int
    runs: tuple[tuple[int, int], ...]

    @property
    def slots(self) -> int:
        """That are read in all."""
        return self.repeats * sum(blocks * slots for blocks, slots in self.runs)

    def of_blocks(self) -> list[int]:
        """Slots that are read of every block."""
        return [slots for blocks, slots in self.runs for _ in range(blocks)] * self.repeats

    def over(self) -> Iterator[tuple[Any, Any, int]]:
        """Emits the loops over blocks: (block, slots that are read of those before it, slots that are read of it)."""
        with T.serial(self.repeats) as again:
            block: Any = again * sum(blocks for blocks, _ in self.runs)
            before: Any = again * sum(blocks * slots for blocks, slots in self.runs)
            for blocks, slots in self.runs:
                with T.serial(blocks) as b:
                    yield block + b, before + b * slots, slots
                block, before = block + blocks, before + blocks * slots


def depth_of(layout: Layout, in_blocks: int, group: int) -> Depth:
    """What is read of the first `in_blocks` blocks of a layout, in whole groups of channels."""
    slots = np.asarray(layout.channels).reshape(layout.blocks, layout.block)
    if in_blocks < layout.blocks or (slots >= 0).all():
        return Depth(repeats=1, runs=((in_blocks, layout.block),))
    held = [max(int(np.flatnonzero(block >= 0).max(initial=0)) + 1, 1) for block in slots]
    read = [-(-count // group) * group for count in held]
    period = next(p for p in range(1, len(read) + 1) if len(read) % p == 0 and read == read[:p] * (len(read) // p))
    runs: list[tuple[int, int]] = []
    for count in read[:period]:
        blocks = runs.pop()[0] if runs and runs[-1][1] == count else 0
        runs.append((blocks + 1, count))
    if len(runs) > _MOST_RUNS:
        return Depth(repeats=1, runs=((in_blocks, layout.block),))
    if len(runs) == 1:
        return Depth(repeats=1, runs=((len(read), read[0]),))
    return Depth(repeats=len(read) // period, runs=tuple(runs))


class Packing:
    """Where the weights of one convolution lie.

    Parameters
    ----------
    depth : what is read for every output. result : layout of what is made. area : kernel rows by columns.
    """

    def __init__(self, depth: Depth, result: Layout, area: int, form: Format) -> None:
        self.form, self.area, self.lanes, self.out_blocks = form, area, result.block, result.blocks
        self.depth = depth
        last = np.asarray(result.channels[-self.lanes :])
        self.tail = int(np.flatnonzero(last >= 0).max(initial=0)) + 1
        self.steps = self.depth.slots * area // form.group
        """Of the reduction: vectors that are read for one output vector."""

    @property
    def numbers(self) -> int:
        """Of the packed weights, with what the last load reads beyond them."""
        channels = (self.out_blocks - 1) * self.lanes + self.tail
        return (self.steps * channels + self.lanes - self.tail) * self.form.group

    @property
    def key(self) -> tuple[Any, ...]:
        """What the code depends on."""
        return self.depth.repeats, self.depth.runs, self.tail

    def packed(self, codes: np.ndarray) -> np.ndarray:
        """(numbers,), from what the format makes of dense weights."""
        group = self.form.group
        codes = codes.reshape(*codes.shape[:5], self.lanes, group)  # out and in blocks, rows, columns, groups
        kept = [codes[:, b, :, :, : slots // group] for b, slots in enumerate(self.depth.of_blocks())]
        rows = np.concatenate([block.reshape(self.out_blocks, -1, self.lanes, group) for block in kept], 1)
        beyond = np.zeros((self.lanes - self.tail) * group, codes.dtype)
        return np.concatenate([rows[:-1].reshape(-1), rows[-1, :, : self.tail].reshape(-1), beyond])

    def stream(self, block: Any, *, last: Any) -> tuple[Any, Any]:
        """Where the weights of an output block begin, and how far its vectors are apart.

        last : whether it is the last block, as code or as a truth.
        """
        group = self.form.group
        start = block * (self.steps * self.lanes * group)
        return start, self._width(last) * group

    def filled(self, vector: Any, *, last: Any) -> Any:
        """A vector of outputs with zeros in the lanes that hold no channel."""
        width = self._width(last)
        if isinstance(width, int) and width == self.lanes:
            return vector
        width = tirx.Broadcast(T.int32(width) if isinstance(width, int) else width, self.lanes)
        return tirx.Select(tirx.Ramp(0, 1, self.lanes) < width, vector, spread(0.0, self.lanes))

    def is_last(self, tile: Any, vector: int, vectors: int) -> Any:
        """Whether a vector of a tile of `vectors` output blocks is the last block."""
        if vector < vectors - 1:
            return False
        tiles = self.out_blocks // vectors
        return True if tiles == 1 else tile == tiles - 1

    def _width(self, last: Any) -> Any:
        if self.tail == self.lanes or isinstance(last, bool):
            return self.tail if last is True else self.lanes
        return T.Bind(tirx.Select(last, T.int32(self.tail), T.int32(self.lanes)))


def ranges(stage: Convolution, source: Layout, result: Layout) -> tuple[np.ndarray, int]:
    """For every output block, the first input block it reads; and how many blocks all of them read."""
    blocks = source.blocks
    if stage.groups == 1:
        return np.zeros(result.blocks, dtype=np.int32), blocks
    slot = {channel: i for i, channel in enumerate(source.channels) if channel >= 0}
    inside, outside = stage.weight.shape[1], len(stage.weight) // stage.groups
    low, high = [], []
    for b in range(result.blocks):
        channels = [c for c in result.channels[b * result.block : (b + 1) * result.block] if c >= 0]
        groups = {c // outside for c in channels}
        read = [slot[g * inside + i] // source.block for g in groups for i in range(inside)]
        low.append(min(read))
        high.append(max(read) + 1)
    count = max(h - first for first, h in zip(low, high))
    return np.array([min(first, blocks - count) for first in low], dtype=np.int32), count


def groups_a_vector(stage: Convolution, source: Layout, result: Layout, group: int) -> int:
    """How many whole groups a vector of outputs has, where each lane can read its own group's channels; else 1.

    That is where channels lie in order on both sides.

    group : numbers that are multiplied at once.
    """
    inside, outside = stage.weight.shape[1], len(stage.weight) // stage.groups
    in_order = _in_order(source, inside * stage.groups) and _in_order(result, len(stage.weight))
    if stage.groups == 1 or source.block != result.block or inside > outside or not in_order:
        return 1
    return 1 if result.block % outside or inside % group or outside % inside else result.block // outside


def own_channels(stage: Convolution, result: Layout, groups: int) -> np.ndarray:
    """(out_blocks,) int32: the first input channel of each output vector's groups, which lie in one block."""
    return np.arange(result.blocks, dtype=np.int32) * np.int32(groups * stage.weight.shape[1])


def own_weights(stage: Convolution, result: Layout) -> np.ndarray:
    """Weights (out_blocks, 1, kernel rows, kernel columns, channels of a group, lanes), f32, 0 where no channel is."""
    count, inside, *area = stage.weight.shape
    weights = np.zeros((result.blocks * result.block, inside, *area), np.float32)
    weights[:count] = stage.weight
    shaped = weights.reshape(result.blocks, result.block, 1, inside, *area)
    return np.ascontiguousarray(shaped.transpose(0, 2, 4, 5, 3, 1))


def _in_order(layout: Layout, count: int) -> bool:
    return layout.channels[:count] == tuple(range(count)) and max(layout.channels) == count - 1


def dense(stage: Convolution, source: Layout, result: Layout, first: np.ndarray, in_blocks: int) -> np.ndarray:
    """Weights (out_blocks, in_blocks, kernel rows, kernel columns, in_block, lanes), f32, 0 where no channel is.

    first, in_blocks : as `ranges` finds them.
    """
    slots, outs = np.asarray(source.channels), np.asarray(result.channels)
    kh, kw = stage.weight.shape[2:]
    width = in_blocks * source.block
    weights = np.zeros((len(outs), width, kh, kw), np.float32)
    if stage.groups == 1:
        weights[np.ix_(outs >= 0, slots >= 0)] = stage.weight[np.ix_(outs[outs >= 0], slots[slots >= 0])]
    else:
        inside, outside = stage.weight.shape[1], len(stage.weight) // stage.groups
        for physical, channel in enumerate(outs):
            if channel < 0:
                continue
            begin = int(first[physical // result.block]) * source.block
            here = slots[begin : begin + width]
            low = (channel // outside) * inside
            mine = (here >= low) & (here < low + inside)
            weights[physical, mine] = stage.weight[channel, here[mine] - low]
    shaped = weights.reshape(result.blocks, result.block, in_blocks, source.block, kh, kw)
    return np.ascontiguousarray(shaped.transpose(0, 2, 4, 5, 3, 1))
