"""The picture itself, sent as a file: what each way does to accuracy, measured on decoded images, and its real size."""

from collections.abc import Sequence

import numpy as np
import torch

from modeltree.image_codes import BASELINE, ImageCode, image_code
from modeltree.preprocessing import Preprocessing
from nas.exits.catalogue import KnownPicture
from nas.jobs.progress import Progress
from nas.training.base_network import Prepared
from runtime.images import coded, received

_BATCH = 250


def measure_pictures(
    prepared: Prepared, codes: Sequence[str], seed: int, progress: Progress
) -> tuple[KnownPicture, ...]:  # fmt: skip
    """Every code of `codes` that this data allows, and `BASELINE`: accuracy on the probe images, bytes of the files.

    `came` is there where the data's images came as JPEG or WebP files: the server makes of those what the device would.
    """
    images, labels = prepared.probe_images(seed)
    if images.ndim != 4 or not len(images):
        return ()
    wanted = list(dict.fromkeys((BASELINE, *codes)))
    preprocessing = prepared.dataset.preprocessing
    plain = _right(prepared, images, labels)
    measured = []
    for done, text in enumerate(wanted):
        code = image_code(text)
        if code.kind in ("jpeg", "webp"):
            seen, sizes = sent(images, code, preprocessing)
            drop = 100.0 * (plain - _right(prepared, seen, labels)) / len(labels)
            pixels = code.pixels(*images.shape[2:])
            measured.append(KnownPicture(code=text, bytes=float(np.mean(sizes)), pixels=pixels, drop=drop))
        elif code.kind == "came" and (files := prepared.dataset.files) is not None:
            measured.append(KnownPicture(code=text, bytes=files.bytes, pixels=files.pixels, drop=0.0))
        progress(done + 1, len(wanted), "pictures as files")
    return tuple(measured)


def sent(images: torch.Tensor, code: ImageCode, preprocessing: Preprocessing) -> tuple[torch.Tensor, list[int]]:
    """What a server sees of images, and the bytes of each file.

    images : (n, channels, height, width) float32, normalised; what comes out is alike. A picture that crosses as it
    came comes out as it is, its size as if it had been coded.
    """
    scale, middle = (
        np.array(values, np.float32)[:, None, None] * np.float32(255)
        for values in (preprocessing.std, preprocessing.mean)
    )
    pixels = np.rint(images.numpy() * scale + middle).clip(0, 255).astype(np.uint8)
    files = [coded(one, code, preprocessing.rule.channels) for one in pixels]
    if code.kind in ("raw", "came"):
        return images, list(map(len, files))
    decoded = np.stack([received(file, preprocessing, whole=False) for file in files])
    return torch.from_numpy(preprocessing.normalised(decoded)), list(map(len, files))


def _right(prepared: Prepared, images: torch.Tensor, truth: np.ndarray) -> float:
    """The sum of all scores."""
    right = 0.0
    with torch.no_grad():
        for start in range(0, len(truth), _BATCH):
            part = slice(start, start + _BATCH)
            right += float(prepared.measure.scores(prepared.answers(images[part]), truth[part]).sum())
    return right
