"""Labelled images, in three parts that never mix."""

import functools
import hashlib
from dataclasses import dataclass, field

import numpy as np
import torch

from modeltree.errors import DataError
from modeltree.preprocessing import PictureRule, Preprocessing

_WHOLE_BYTES = 256 * 2**20
_SMALL = 5000  # training images


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageSet:
    """Images and their labels.

    images : (n, 1 or 3, height, width) uint8; may be a memory map.
    labels : (n,) int64, indices into `Dataset.classes`; 0 where there are none.
    targets : (n, ...), what a network of another task should answer; objects where images differ in its shape.
    """

    images: np.ndarray
    labels: np.ndarray
    targets: np.ndarray | None = None

    def __post_init__(self) -> None:
        shape = self.images.shape
        if self.images.dtype != np.uint8 or len(shape) != 4 or shape[1] not in (1, 3):
            raise DataError(f"images are {self.images.dtype} {shape} but must be uint8 (n, 1 or 3, height, width)")
        if self.labels.dtype != np.int64 or self.labels.shape != shape[:1]:
            raise DataError(f"labels are {self.labels.dtype} {self.labels.shape} but must be int64 {shape[:1]}")

        if self.targets is not None and len(self.targets) != len(self.labels):
            raise DataError(f"there are {len(self.targets)} targets but {len(self.labels)} images: one each is needed")

    @property
    def truth(self) -> np.ndarray:
        """(n, ...), what answers are held against."""
        return self.labels if self.targets is None else self.targets

    def take(self, chosen: np.ndarray) -> "ImageSet":
        """The images at some positions, (m,)."""
        targets = None if self.targets is None else self.targets[chosen]
        return ImageSet(images=self.images[chosen], labels=self.labels[chosen], targets=targets)

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, kw_only=True)
class FileFacts:
    """Images as the files that they came as, all JPEG or WebP: mean size in bytes, and mean number of pixels."""

    bytes: float
    pixels: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """A data set as every part of `nas` sees it.

    name : `digits`, `cifar10` or `imagefolder`.
    classes : names, in the order of the labels; none where images have none.
    mean, std : per channel, of pixels scaled to 0..1.
    fit : for training and distillation.
    search : held back from training; what the search and the predictor look at.
    test : for the final report alone.
    flip : whether a mirrored image keeps its label (digits do not).
    picture : how a picture becomes an image like these.
    files : what the images were that a device will see, where they came as files that can be sent on; else None.
    """

    name: str
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fit: ImageSet
    search: ImageSet
    test: ImageSet
    flip: bool
    picture: PictureRule = field(default_factory=PictureRule)
    files: FileFacts | None = None

    @property
    def small(self) -> bool:
        """Whether there are so few training images that fewer steps do."""
        return len(self.fit) < _SMALL

    @property
    def preprocessing(self) -> Preprocessing:
        """All that is done to a picture before a network sees it."""
        height, width = self.fit.images.shape[2:]
        return Preprocessing(height=height, width=width, mean=self.mean, std=self.std, rule=self.picture)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of an image."""
        channels, height, width = self.fit.images.shape[1:]
        return channels, height, width

    @functools.cached_property
    def fingerprint(self) -> str:
        """sha256, in hex, of everything above. Of parts over 256 MiB all labels but only 4096 spread images count."""
        digest = hashlib.sha256(repr((self.name, self.classes, self.mean, self.std, self.flip)).encode())
        if self.picture != PictureRule():
            digest.update(repr(self.picture).encode())
        for part in (self.fit, self.search, self.test):
            digest.update(repr(part.images.shape).encode() + np.ascontiguousarray(part.labels).tobytes())
            step = 1 if part.images.nbytes <= _WHOLE_BYTES else -(-len(part) // 4096)
            digest.update(np.ascontiguousarray(part.images[::step]).data)
            for target in () if part.targets is None else part.targets:
                for key, array in (target if isinstance(target, dict) else {"": np.asarray(target)}).items():
                    digest.update(f"{key} {array.dtype} {array.shape}".encode() + array.tobytes())
        return digest.hexdigest()

    def normalise(self, images: np.ndarray | torch.Tensor) -> torch.Tensor:
        """As `Preprocessing.normalised`, to the bit, of (n, c, h, w) uint8: float32, on the same device.

        Raises
        ------
        DataError : the images are not uint8, or not of that shape.
        """
        count = len(self.mean)
        if str(images.dtype).removeprefix("torch.") != "uint8" or images.ndim != 4 or images.shape[1] != count:
            raise DataError(f"images are {images.dtype} {tuple(images.shape)} but must be uint8 (n, {count}, h, w)")
        if isinstance(images, np.ndarray):
            return torch.from_numpy(self.preprocessing.normalised(images))
        mean = torch.tensor(self.mean, device=images.device).view(-1, 1, 1) * 255.0
        scale = torch.tensor(self.std, device=images.device).view(-1, 1, 1) * 255.0
        return (images.float() - mean) / scale
