"""The user's own images: one folder per class, as torchvision's ImageFolder has them."""

from pathlib import Path

import numpy as np

from modeltree.errors import DataError
from modeltree.preprocessing import ImageSize, PictureRule
from nas.data import cifar10
from nas.data.dataset import Dataset
from nas.data.decoding import Files, decoded
from nas.data.file_sizes import file_facts
from nas.data.split import mean_and_std, stratified
from runtime.images.folders import SUFFIXES, image_files, subfolders

SEARCH_SHARE, SEARCH_MOST = 0.10, 5000


def load(folder: Path, *, size: ImageSize, seed: int, cache: Path | None, rule: PictureRule) -> Dataset:
    """Read `train/` and `val/` or `test/` or both.

    With both, `val` is `search` and `test` is `test`. With one of them it is `test`, and `search` is a stratified 10 %
    of `train`, at most 5000. Images become pixels by the rule; those that cannot be read are left
    out with a warning. Mean and deviation are the training images' own, except that at 32x32 the ten class names of
    CIFAR-10 get CIFAR-10's, for which networks trained on it are made. Mirrored images keep their label.

    cache : folder for decoded images, which are then mapped instead of read; None decodes into memory every time.

    Raises
    ------
    DataError : a missing folder, no classes, a class without images, a class unknown to `train`, hardly an
        image that can be read.
    """
    classes, parts = class_names(folder), _parts(folder)
    fit, test = _files(folder / "train", classes), _files(folder / parts[-1], classes)
    if len(parts) == 2:
        search = _files(folder / "val", classes)
    else:
        count = min(round(SEARCH_SHARE * len(fit)), SEARCH_MOST)
        labels = np.array([label for _, label in fit])
        kept, held = stratified(labels, count, np.random.default_rng(seed))
        fit, search = [fit[k] for k in kept], [fit[k] for k in held]
    if not search:
        raise DataError(f"{folder} has too few images to hold some back for the search: add images or a val/ folder")

    sets = [
        decoded(files, folder=folder, height=size.height, width=size.width, rule=rule, cache=cache)
        for files in (fit, search, test)
    ]
    is_cifar = classes == cifar10.CLASSES and size == (32, 32) and rule.channels == "RGB"
    mean, std = (cifar10.MEAN, cifar10.STD) if is_cifar else mean_and_std(sets[0].images)
    return Dataset(
        name="imagefolder",
        classes=classes,
        mean=mean,
        std=std,
        fit=sets[0],
        search=sets[1],
        test=sets[2],
        flip=True,
        picture=rule,
        files=file_facts([path for path, _ in test]),
    )


def class_names(folder: Path) -> tuple[str, ...]:
    """The class folders of `train/`, in sorted order; no image is looked at.

    Raises
    ------
    DataError : the folders are not there, or hold fewer than two classes.
    """
    if not (folder / "train").is_dir() or not _parts(folder):
        raise DataError(f"{folder} must hold train/ and val/ or test/ with one folder per class: arrange the images so")
    classes = tuple(path.name for path in subfolders(folder / "train"))
    if len(classes) < 2:
        raise DataError(f"{folder / 'train'} holds {len(classes)} class folders but must hold at least 2: add some")
    return classes


def _parts(folder: Path) -> list[str]:
    return [name for name in ("val", "test") if (folder / name).is_dir()]


def _files(folder: Path, classes: tuple[str, ...]) -> Files:
    """All images under the class folders, in sorted order."""
    files: Files = []
    for home in subfolders(folder):
        if home.name not in classes:
            raise DataError(f"{home} is a class that train/ does not have: remove it or add it there")
        found = image_files(home)
        if not found:
            raise DataError(f"{home} holds no image ({', '.join(SUFFIXES)}): add some or remove the folder")
        files += [(path, classes.index(home.name)) for path in found]
    if not files:
        raise DataError(f"{folder} holds no class folders: it must hold one per class")
    return files
