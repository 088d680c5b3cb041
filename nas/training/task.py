"""What a base network is there for, found from what it answers, and how good answers are.

One vector of classes that the data knows is classification. Anything else, and whatever the user has a measure for, is
another task: without a measure, answers are held against the base network's own.
"""

import copy
import warnings
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from modeltree.errors import ConfigError, DataError, Remark
from modeltree.outputs import Output, OutputKind, answer_shape
from nas.config import SearchConfig
from nas.data.dataset import Dataset, ImageSet
from nas.quality.agreement import Agreement, agreement, usual_kind
from nas.quality.answers import OneTensor, shapes_of
from nas.quality.measure import TOP1, Measure, percent
from nas.quality.own_metric import own_metric

FACTORY = "factory"
"""Weights that are the factory's own."""

_TARGET_BYTES = 256 * 2**20  # of the base network's answers, for one part of the images
_FEWEST, _JUDGED = 64, 200
_BATCH = 32


def outputs_of(model: nn.Module, config: SearchConfig, classes: int) -> tuple[tuple[Output, ...], nn.Module]:
    """What a network answers, where that is not one vector of so many classes, else nothing; and the network with the
    same weights as one that answers with one tensor.

    Raises
    ------
    ConfigError : the answer cannot be judged, or `outputs` names another one.
    """
    with torch.no_grad():
        answer = copy.deepcopy(model).eval()(torch.zeros(2, *config.input_shape))
    shapes = shapes_of(answer, 2)
    whole = model if isinstance(answer, torch.Tensor) and answer.ndim > 1 else OneTensor(model)
    lone = next(iter(shapes.values())) if len(shapes) == 1 else ()
    if lone == (classes,) and not config.outputs:
        return (), whole
    if len(lone) == 1 and classes and not config.outputs and config.metric is None:
        raise ConfigError(
            f"{config.base} gives {(2, *lone)} for two images but must give (2, {classes}): fit it to the data, or "
            "judge another task by --outputs output=KIND, --metric or --data images:DIR"
        )
    kinds = dict(text.split("=", 1) for text in config.outputs)
    if unknown := sorted(set(kinds) - set(shapes)):
        known = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
        raise ConfigError(f"outputs names {unknown[0]!r}: the network gives {known}")
    outputs = []
    for name, shape in shapes.items():
        kind: OutputKind = kinds.get(name) or usual_kind(shape, config.input_shape)  # type: ignore[assignment]
        if kind == "pixels" and len(shape) != 3:
            raise ConfigError(
                f"output {name!r} is {list(shape)}: pixels are (channels, height, width), say another kind"
            )
        outputs.append(Output(name=name, shape=shape, kind=kind))
    return tuple(outputs), whole


def say_agreement(outputs: Sequence[Output]) -> None:
    """Point out (a `Remark`) what answers are held against, and how: shapes alone decided it where nobody said."""
    kinds = ", ".join(f"{one.name} {'x'.join(map(str, one.shape))} as {one.kind}" for one in outputs)
    warnings.warn(
        f"accuracy is agreement with the base network, {kinds}: --outputs NAME=KIND or --metric say otherwise",
        Remark,
        stacklevel=3,
    )


def judged(
    dataset: Dataset, model: nn.Module, config: SearchConfig, outputs: tuple[Output, ...], classes: int
) -> tuple[Dataset, Measure]:  # fmt: skip
    """The measure of a task, and the data with what answers are held against, of which there may be fewer images.

    model : answers with one tensor.
    """
    if not outputs and config.metric is None:
        return dataset, TOP1
    shown = outputs or (Output(name="output", shape=(classes,), kind="classes"),)
    if config.metric is not None and (dataset.classes or dataset.test.targets is not None):
        return dataset, own_metric(config.metric, shown, from_base=False)
    answers = {part: _answered(model, dataset, getattr(dataset, part), shown) for part in ("search", "test")}
    told = replace(dataset, search=answers["search"], test=answers["test"])
    if config.metric is not None:
        return told, own_metric(config.metric, shown, from_base=True)
    targets = told.search.targets
    assert targets is not None
    return told, agreement(shown, targets)


def key_of(measure: Measure) -> str:
    """What tells a measure from others; empty for right classes."""
    return "" if measure is TOP1 else repr(measure)


def task_fault(model: nn.Module, dataset: Dataset, measure: Measure) -> str | None:
    """What keeps a network of another task from being worth a search, in words; None where nothing does.

    Raises
    ------
    DataError : it answers with numbers that are not finite.
    """
    part = dataset.search.take(np.arange(min(_JUDGED, len(dataset.search))))
    answers = torch.cat(list(_answers(model, dataset, part)))
    if not bool(torch.isfinite(answers).all()):
        raise DataError(
            "the network answers with numbers that are not finite: check its weights, and --mean and --std"
        )  # fmt: skip
    constant = answers.mean(0, keepdim=True).expand_as(answers)
    if float((answers - constant).abs().max()) <= 1e-6 * float(answers.abs().max()):
        return f"it answers the same to all of {len(part)} images"
    if isinstance(measure, Agreement) or getattr(measure, "from_base", False):
        return None
    own, blind = (percent([measure.scores(one.contiguous(), part.truth)]) for one in (answers, constant))
    if own > blind:
        return None
    return (
        f"its {measure.name} is at {own:.1f} % of the range on {len(part)} images, where the mean answer, the same to "
        f"all, is at {blind:.1f} %"
    )


def _answered(model: nn.Module, dataset: Dataset, part: ImageSet, outputs: Sequence[Output]) -> ImageSet:
    """Images with the network's answers as targets; as many as memory takes."""
    size = 4 * int(np.prod(answer_shape(outputs)))
    kept = part.take(np.arange(min(len(part), max(_FEWEST, _TARGET_BYTES // size))))
    return replace(kept, targets=torch.cat(list(_answers(model, dataset, kept))).numpy())


def _answers(model: nn.Module, dataset: Dataset, part: ImageSet) -> "list[torch.Tensor]":
    """Of a network in eval mode, batch by batch."""
    with torch.no_grad():
        return [
            model(dataset.normalise(np.asarray(part.images[start : start + _BATCH])))
            for start in range(0, len(part), _BATCH)
        ]
