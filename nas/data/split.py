"""Which images are held back."""

import numpy as np


def stratified(labels: np.ndarray, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Choose `count` images such that every class gives its share, and leave the rest.

    Shares are rounded by largest remainder; a class never gives its last image, so the rest holds every class.

    Parameters
    ----------
    labels : (n,) integers.
    count : how many to hold back.

    Returns
    -------
    (rest, held) : sorted indices into `labels`; `held` is shorter than `count` only where classes ran out.
    """
    classes, sizes = np.unique(labels, return_counts=True)
    share = sizes * count / max(len(labels), 1)
    take = np.floor(share).astype(np.int64)
    short = max(count - int(take.sum()), 0)
    take[np.argsort(take - share, kind="stable")[:short]] += 1
    take = np.minimum(take, sizes - 1)
    members = [rng.permutation(np.flatnonzero(labels == name))[:k] for name, k in zip(classes, take, strict=True)]
    held = np.sort(np.concatenate(members)) if members else np.empty(0, np.int64)
    return np.setdiff1d(np.arange(len(labels)), held), held


def mean_and_std(images: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Per-channel mean and standard deviation of pixels scaled to 0..1, from at most 5000 images spread over `images`.

    images : (n, c, h, w), uint8. A channel that is all one colour gets 1/255: normalising never divides by zero.
    """
    pixels = images[:: max(1, -(-len(images) // 5000))].astype(np.float32) / 255
    mean = pixels.mean((0, 2, 3), dtype=np.float64)
    std = np.maximum(pixels.std((0, 2, 3), dtype=np.float64), 1 / 255)
    return tuple(mean.tolist()), tuple(std.tolist())
