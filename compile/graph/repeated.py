"""Constants whose numbers come again are held once, and laid out while running.

Attention that knows how far two tokens are apart adds a bias to every pair of them, read from a short table by an index
that all heads share. torch computes what is constant, so that such a sum arrives as one number a head and pair. Here it
is taken apart again, whatever made it: the columns that differ, and for every place which of them is there.
"""

from dataclasses import replace

import numpy as np

from compile.graph.stages import Gather, Map, Product, Program, Rows, Stage, Step, Value

_LEAST_BYTES = 64_000
_MOST_SHARE = 0.5
"""Of a constant's bytes that its table and index may have; else it stays as it is, for laying it out takes time."""
_INDEX_BYTES = 4


def indexed(program: Program) -> Program:
    """Large constants that steps on row-major tensors read, as tables and places in them where that halves them."""
    stages: list[Stage] = []
    for stage in program.stages:
        if isinstance(stage, (Product, Map, Rows)):
            steps: list[Step] = []
            for number, step in enumerate(stage.steps):
                if isinstance(step.operand, np.ndarray) and step.operand.nbytes >= _LEAST_BYTES:
                    gather = _taken_apart(step.operand.astype(np.float32), f"{stage.out.name}_step{number}")
                    if gather is not None:
                        stages.append(gather)
                        step = replace(step, operand=gather.out)
                steps.append(step)
            stage = replace(stage, steps=tuple(steps))
        stages.append(stage)
    return program.with_stages(stages)


def _taken_apart(array: np.ndarray, name: str) -> Gather | None:
    """The array as a gather from the columns of it that differ, by the split of its axes that takes fewest bytes."""
    found: list[tuple[int, np.ndarray, np.ndarray]] = []
    for axis in range(1, array.ndim):
        matrix = array.reshape(int(np.prod(array.shape[:axis])), -1)
        if _INDEX_BYTES * matrix.shape[1] > _MOST_SHARE * array.nbytes:
            continue
        first, places = _columns(matrix)
        found.append((4 * len(matrix) * len(first) + _INDEX_BYTES * len(places), matrix[:, first], places))
    taken, table, places = min(found, key=lambda one: one[0], default=(array.nbytes, array, array))
    if taken > _MOST_SHARE * array.nbytes:
        return None
    rows = np.arange(len(table), dtype=np.int64)[:, None] * table.shape[1]
    out = Value(name, array.shape)
    return Gather(parts=(np.ascontiguousarray(table),), out=out, table=(rows + places).reshape(array.shape))


def _columns(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each different column is first, and which of them every column is; numbered as they come.

    So constants that were read by one index have one index, which planning holds once.
    """
    bits = np.ascontiguousarray(matrix).view(np.uint32).astype(np.uint64)
    factors = np.random.default_rng(0).integers(1, 2**63, len(matrix), dtype=np.uint64) | np.uint64(1)
    sums = (bits * factors[:, None]).sum(0, dtype=np.uint64)  # of equal columns equal; of others hardly ever
    _, first, places = np.unique(sums, return_index=True, return_inverse=True)
    if not (bits[:, first][:, places] == bits).all():
        return np.arange(matrix.shape[1]), np.arange(matrix.shape[1])
    order = first.argsort()
    return first[order], order.argsort()[places.reshape(-1)]
