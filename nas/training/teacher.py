"""Altered training images and what the base network answers to them: what composed networks are distilled on."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from modeltree.errors import DataError
from modeltree.files import written_whole
from modeltree.outputs import Output
from nas.jobs.batches import images_at_once
from nas.jobs.progress import Progress
from nas.training.base_network import Prepared
from nas.training.train import augment

_MOST = 16_000
_ANSWER_BYTES, _FEWEST = 2**30, 64
_WAYS = 2


@dataclass(frozen=True, kw_only=True)
class DistillationSet:
    """Images, cropped and mirrored in two fixed ways each, and the base network's logits for them.

    chosen : which training images. logits : (ways, len(chosen), classes), or of what else the network answers.
    """

    prepared: Prepared
    chosen: np.ndarray
    logits: np.ndarray
    seed: int

    def __len__(self) -> int:
        return len(self.chosen)

    @property
    def outputs(self) -> tuple[Output, ...]:
        """What the answers are, where that is not one vector of classes."""
        return self.prepared.outputs

    def take(self, positions: np.ndarray, way: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Normalised images (n, c, h, w) and answers (n, ...) of some examples; positions : (n,)."""
        images = _images(self.prepared, self.chosen[positions], way, self.seed)
        return images, torch.from_numpy(np.ascontiguousarray(self.logits[way, positions]))


def distillation_set(
    prepared: Prepared, folder: Path, seed: int, progress: Progress, most: int = _MOST
) -> DistillationSet:  # fmt: skip
    """The distillation set of a base network, from `folder` if an earlier search left it there.

    At most `most` training images, each in two ways; the network runs over them once.

    Raises
    ------
    DataError : the folder cannot be written.
    """
    fit = prepared.dataset.fit
    fitting = max(_FEWEST, _ANSWER_BYTES // (4 * _WAYS * math.prod(prepared.answer_shape)))
    chosen = np.sort(np.random.default_rng([seed, 2]).permutation(len(fit))[: min(most, _MOST, fitting)])
    path = folder / f"lessons_{seed}_{_WAYS}_{len(chosen)}.npy"
    shape = (_WAYS, len(chosen), *prepared.answer_shape)
    known = _read(path, shape)
    if known is not None:
        return DistillationSet(prepared=prepared, chosen=chosen, logits=known, seed=seed)
    answers = np.empty(shape, dtype=np.float32)
    total, done, at_once = _WAYS * len(chosen), 0, images_at_once(prepared.network.spec)
    with torch.no_grad():
        for way in range(_WAYS):
            for start in range(0, len(chosen), at_once):
                part = chosen[start : start + at_once]
                images = _images(prepared, part, way, seed)
                answers[way, start : start + len(part)] = prepared.answers(images).numpy()
                done += len(part)
                progress(done, total, "answers of the base network")
    if not np.isfinite(answers).all():
        raise DataError(
            "the base network answers with numbers that are not finite: train it again or check its weights"
        )
    with written_whole(path) as temporary, temporary.open("wb") as file:
        np.save(file, answers)
    return DistillationSet(prepared=prepared, chosen=chosen, logits=answers, seed=seed)


def _read(path: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    """Logits that an earlier search left; None if there are none or the file is damaged."""
    if not path.exists():
        return None
    try:
        with path.open("rb") as file:
            known: np.ndarray = np.lib.format.read_array(file, allow_pickle=False)
    except ValueError:
        return None
    return known if known.shape == shape and known.dtype == np.float32 else None


def _images(prepared: Prepared, indices: np.ndarray, way: int, seed: int) -> torch.Tensor:
    """Each image with an alteration of its own, which depends on the image, the way and the seed alone."""
    dataset = prepared.dataset
    altered = [
        augment(
            np.asarray(dataset.fit.images[i : i + 1]),
            np.random.default_rng([seed, way, i]),
            flip=dataset.flip,
            crop=True,
        )
        for i in indices.tolist()
    ]
    return dataset.normalise(np.concatenate(altered))
