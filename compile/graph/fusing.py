"""Stages that vanish into the stage before them: scales and shifts into weights, activations into epilogues."""

from dataclasses import replace

import numpy as np

from compile.graph.stages import (
    Convolution,
    Elementwise,
    Map,
    Pool,
    Product,
    Program,
    Rows,
    Stage,
    Step,
    Value,
    users,
)


def folded(program: Program) -> Program:
    """Scales and shifts by constants (batch norm, bias) folded into the convolution they follow.

    A convolution comes out with at most one shift, its first step: `Step(op="add", operand=bias)`.
    """
    return _merged(program, _fold)


def fused(program: Program) -> Program:
    """Element-wise stages as steps of the stage that makes their input, residual additions among them."""
    return _merged(program, _attach)


def pooled(program: Program) -> Program:
    """Max pooling of 2x2 inside the convolution in front of it, where every window is whole."""
    return _merged(program, _pool)


def _merged(program: Program, merge: object) -> Program:
    """Try `merge(producer, consumer)` on every consumer whose input nobody else reads, in order."""
    stages: list[Stage] = []
    made: dict[str, Stage] = {}
    reading = {name: len(by) for name, by in users(list(program.stages)).items()}
    reading[program.result.name] = reading.get(program.result.name, 0) + 1
    for stage in program.stages:
        for candidate in _ways(stage):
            producer = made.get(candidate.x.name)  # type: ignore[union-attr]
            joined = merge(producer, candidate) if producer and reading[producer.out.name] == 1 else None  # type: ignore[operator]
            if joined is not None:
                stages.remove(producer)  # type: ignore[arg-type]
                stage = joined
                break
        stages.append(stage)
        made[stage.out.name] = stage
    return program.with_stages(stages)


def _ways(stage: Stage) -> list[Stage]:
    """A stage as it is and, where its first step is symmetric, with its two tensors changed over."""
    if not isinstance(stage, (Elementwise, Map, Pool)):
        return []
    ways: list[Stage] = [stage]
    if isinstance(stage, (Elementwise, Map)):
        first = stage.steps[0]
        if isinstance(first.operand, Value) and first.operand.shape == stage.x.shape and first.op != "divide":
            swapped = replace(first, op=_SWAPPED.get(first.op, first.op), operand=stage.x)
            ways.append(replace(stage, x=first.operand, steps=(swapped, *stage.steps[1:])))
    return ways


_SWAPPED = {"subtract": "subtract_from", "subtract_from": "subtract", "divide_into": "divide"}


def _fold(producer: Stage, consumer: Stage) -> Stage | None:
    if not isinstance(producer, Convolution) or not isinstance(consumer, Elementwise):
        return None
    if any(isinstance(step.operand, Value) or step.op not in _AFFINE for step in consumer.steps):
        return None
    channels = len(producer.weight)
    weight = producer.weight.astype(np.float64)
    bias = np.zeros(channels)
    if producer.steps:
        bias = bias + producer.steps[0].operand  # type: ignore[operator]
    for step in consumer.steps:
        number = np.broadcast_to(np.asarray(step.operand, dtype=np.float64), (channels,))
        if step.op == "multiply":
            weight, bias = weight * number[:, None, None, None], bias * number
        else:
            bias = bias + number if step.op == "add" else bias - number
    shift = Step(op="add", operand=bias.astype(np.float32))
    return replace(producer, out=consumer.out, weight=weight.astype(np.float32), steps=(shift,))


_AFFINE = ("add", "subtract", "multiply")


def _attach(producer: Stage, consumer: Stage) -> Stage | None:
    if isinstance(consumer, Elementwise):
        if not isinstance(producer, (Convolution, Pool, Elementwise)):
            return None
    elif not isinstance(consumer, Map) or not isinstance(producer, (Product, Rows, Map)):
        return None
    if isinstance(producer, Convolution) and producer.pool > 1:
        return None
    if isinstance(producer, Rows) and producer.length != producer.out.shape[-1]:
        return None
    if any(step.operand == producer.out for step in consumer.steps if isinstance(step.operand, Value)):
        return None
    return replace(producer, out=consumer.out, steps=(*producer.steps, *consumer.steps))


def _pool(producer: Stage, consumer: Stage) -> Stage | None:
    if not isinstance(producer, Convolution) or not isinstance(consumer, Pool) or consumer.kind != "max":
        return None
    rows, columns = producer.conv_area
    whole = consumer.kernel == consumer.stride == (2, 2) and not any(consumer.padding)
    if not whole or rows % 2 or columns % 2 or producer.pool > 1 or consumer.steps:
        return None
    if any(isinstance(step.operand, Value) for step in producer.steps) or _is_depthwise(producer):
        return None
    return replace(producer, out=consumer.out, pool=2)


def _is_depthwise(stage: Convolution) -> bool:
    return stage.groups == stage.x.channels == len(stage.weight) and stage.groups > 1
