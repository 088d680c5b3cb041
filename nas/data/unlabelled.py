"""A folder of pictures without classes, for networks of any task: `images:DIR`.

What a network should answer may lie beside each picture, as numbers of the user's own for his own measure: `x.npy`, one
array, or `x.npz`, several by name, beside `x.jpg`.
"""

from pathlib import Path

import numpy as np

from modeltree.errors import DataError
from modeltree.preprocessing import ImageSize, PictureRule
from nas.data.dataset import Dataset, ImageSet
from nas.data.decoding import decoded
from nas.data.file_sizes import file_facts
from nas.data.split import mean_and_std
from runtime.images.folders import SUFFIXES, image_files

TEST_SHARE, SEARCH_SHARE, SEARCH_MOST = 0.2, 0.1, 5000
_LEAST = 10


def load(folder: Path, *, size: ImageSize, seed: int, cache: Path | None, rule: PictureRule) -> Dataset:
    """Every picture in the folder and below, divided by the seed: a fifth is `test`, a tenth `search`.

    Targets are read where every picture has some. Mirrored images are not used: targets would have to be, too.

    Raises
    ------
    DataError : no such folder, fewer than 10 pictures, targets for some pictures only, or files that are none.
    """
    if not folder.is_dir():
        raise DataError(f"no folder {folder}: pass images:DIR with a folder of pictures")
    paths = image_files(folder)
    if len(paths) < _LEAST:
        raise DataError(
            f"{folder} holds {len(paths)} pictures ({', '.join(SUFFIXES)}): at least {_LEAST} are needed, some hundred "
            "to judge by"
        )
    beside = [_beside(path) for path in paths]
    if any(beside) and not all(beside):
        lacking = paths[beside.index(None)]
        raise DataError(f"{lacking} has no .npy or .npz beside it, as other pictures have: give each one, or none")
    order = np.random.default_rng(seed).permutation(len(paths))
    test, search = round(TEST_SHARE * len(paths)), min(max(2, round(SEARCH_SHARE * len(paths))), SEARCH_MOST)
    parts = [np.sort(part) for part in (order[test + search :], order[test : test + search], order[:test])]
    sets = []
    for part in parts:
        files = [
            (paths[i], k) for k, i in enumerate(part.tolist())
        ]  # labelled by position: unreadable ones are left out
        images = decoded(
            files, folder=folder, height=size.height, width=size.width, rule=rule, cache=cache, whole=False
        )
        read = part[images.labels]
        targets = _targets([found for i in read.tolist() if (found := beside[i]) is not None])
        sets.append(ImageSet(images=images.images, labels=np.zeros(len(read), np.int64), targets=targets))
    mean, std = mean_and_std(sets[0].images)
    return Dataset(
        name="images", classes=(), mean=mean, std=std, fit=sets[0], search=sets[1], test=sets[2], flip=False,
        picture=rule, files=file_facts([paths[i] for i in parts[2].tolist()]),
    )  # fmt: skip


def _beside(picture: Path) -> Path | None:
    return next((path for end in (".npy", ".npz") if (path := picture.with_suffix(end)).is_file()), None)


def _targets(files: list[Path]) -> np.ndarray | None:
    """One target an image: an array where all are alike, else objects; None where there are none."""
    if not files:
        return None
    read = [_read(path) for path in files]
    arrays = [one for one in read if isinstance(one, np.ndarray)]
    if len(arrays) == len(read) and len({(one.shape, one.dtype) for one in arrays}) == 1:
        return np.stack(arrays)
    each = np.empty(len(read), object)
    each[:] = read
    return each


def _read(path: Path) -> "np.ndarray | dict[str, np.ndarray]":
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded:
            return dict(loaded)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} cannot be read: {str(error).splitlines()[0]}: save it with numpy.save") from error
