"""The 1797 handwritten digits inside scikit-learn: real data that needs no download."""

import numpy as np

from modeltree.preprocessing import ImageSize, PictureRule
from nas.data.dataset import Dataset, ImageSet
from nas.data.decoding import pixels_alone
from nas.data.split import mean_and_std, stratified
from runtime.images import pixels_of

CLASSES = tuple("0123456789")


def load(*, size: ImageSize, seed: int, rule: PictureRule) -> Dataset:
    """Ten digits, 8x8 grey, cut and scaled (bicubic) to `size` by the rule, repeated over its channels.

    A stratified 20 % is `test`, 15 % of the rest is `search`. A mirrored digit is no digit, so flips are off.
    """
    from sklearn.datasets import load_digits

    raw = load_digits()
    labels = raw.target.astype(np.int64)
    grey = np.round(raw.images * (255 / 16)).astype(np.uint8)
    preprocessing = pixels_alone(*size, rule)
    images = np.stack([pixels_of(image, preprocessing) for image in grey])

    rng = np.random.default_rng(seed)
    rest, test = stratified(labels, round(0.20 * len(labels)), rng)
    fit, search = stratified(labels[rest], round(0.15 * len(rest)), rng)
    fit, search = rest[fit], rest[search]
    mean, std = mean_and_std(images[fit])
    return Dataset(
        name="digits",
        classes=CLASSES,
        mean=mean,
        std=std,
        fit=ImageSet(images=images[fit], labels=labels[fit]),
        search=ImageSet(images=images[search], labels=labels[search]),
        test=ImageSet(images=images[test], labels=labels[test]),
        flip=False,
        picture=rule,
    )
