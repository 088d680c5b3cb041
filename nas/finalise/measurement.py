"""What is measured at the end of a search: the base network and every path, on search and on test images."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from modeltree.files import write_text
from modeltree.image_codes import ImageCode
from nas.data import ImageSet
from nas.exits.pictures import sent
from nas.finalise.finetune import Forest, forest_seen, set_thresholds_
from nas.jobs.batches import images_at_once
from nas.jobs.progress import Progress
from nas.quality.measure import percent
from nas.training.base_network import Prepared
from nas.treesearch.evaluator import PathOutcome, PlanPath

Batch = tuple[torch.Tensor, np.ndarray]
"""Normalised images, (n, channels, height, width), and what they should be answered with, (n, ...)."""


def measure(prepared: Prepared, forest: Forest, judged: Batch, folder: Path, progress: Progress) -> dict[str, Any]:
    """Accuracy in percent of the base network, and the outcome of every path of a forest, as plain values.

    Parameters
    ----------
    judged : the search images. folder : the base network's library; what no search changes is kept there.
    """
    test = prepared.dataset.test
    reference = folder / "reference.json"
    if reference.exists():
        known = json.loads(reference.read_text())
    else:
        known = _references(prepared, judged)
        write_text(reference, json.dumps(known))
    set_thresholds_(forest, *judged)
    on_search = list(forest_seen(forest, parts(prepared, judged)).values())
    batches = _with_progress(_batches(prepared, test), -(-len(test) // images_at_once(prepared.network.spec)), progress)
    return {**known, "search": on_search, "test": list(forest_seen(forest, batches).values())}


def measured_as_sent(
    prepared: Prepared, judged: Batch, codes: Sequence[ImageCode], progress: Progress
) -> dict[str, tuple[float, float]]:  # fmt: skip
    """Percent that the base network gets right of the search and of the test images, as a server sees them.

    codes : how they cross, by whose text the answer goes.
    """
    test, preprocessing, found = prepared.dataset.test, prepared.dataset.preprocessing, {}
    for done, code in enumerate(codes):
        on_search, on_test = (
            _top1(prepared, ((sent(images, code, preprocessing)[0], truth) for images, truth in batches))
            for batches in (parts(prepared, judged), _batches(prepared, test))
        )
        found[code.text] = on_search, on_test
        progress(done + 1, len(codes), "pictures as files, measured")
    return found


def parts(prepared: Prepared, whole: Batch) -> Iterator[Batch]:
    """Images and labels, as many at once as memory takes well."""
    return batches_of(whole, images_at_once(prepared.network.spec))


def batches_of(whole: Batch, at_once: int) -> Iterator[Batch]:
    """Images and labels, `at_once` at a time."""
    for start in range(0, len(whole[1]), at_once):
        yield whole[0][start : start + at_once], whole[1][start : start + at_once]


def outcomes(
    owned: Iterable[Mapping[PlanPath, float]], paths: Iterable[PlanPath], measured: Sequence[Sequence[float]],
    base: float,
) -> dict[PlanPath, PathOutcome]:  # fmt: skip
    """What every path of every method gives.

    Parameters
    ----------
    owned : per method, its paths. paths, measured : those that were measured, and what that brought.
    base : percent of the base network; a path that no method trained changes nothing, and is as good.
    """
    known = {path: PathOutcome(base, 1.0) for every in owned for path in every}
    return known | {path: PathOutcome(*one) for path, one in zip(paths, measured)}


def _references(prepared: Prepared, judged: Batch) -> dict[str, float]:
    test = prepared.dataset.test
    return {
        "base_search": _top1(prepared, parts(prepared, judged)),
        "base_test": _top1(prepared, _batches(prepared, test)),
    }


def _batches(prepared: Prepared, part: ImageSet) -> Iterator[Batch]:
    at_once = images_at_once(prepared.network.spec)
    for start in range(0, len(part), at_once):
        chosen = slice(start, start + at_once)
        yield prepared.dataset.normalise(np.asarray(part.images[chosen])), part.truth[chosen]


def _with_progress(batches: Iterator[Batch], total: int, progress: Progress) -> Iterator[Batch]:
    for done, batch in enumerate(batches, 1):
        yield batch
        progress(done, total, "measuring")


def _top1(prepared: Prepared, batches: Iterable[Batch]) -> float:
    with torch.no_grad():
        return percent([prepared.measure.scores(prepared.answers(images), truth) for images, truth in batches])
