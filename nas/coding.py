"""What a hand-over with fewer bits costs: accuracy and bytes for every place and width, through the codec itself.

Every image crosses alone, as it would from a device: its frame is encoded, counted and decoded, and the rest of the
network goes on from the decoded numbers [Niu 2022, sec. III-A].
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from modeltree.errors import ConfigError
from modeltree.network import FLOAT_BYTES
from runtime.codec import FLOAT_BITS
from runtime.frames import decode, encode
from transforms.network import Network


@dataclass(frozen=True, kw_only=True)
class Coded:
    """One place and width.

    shape : of what crosses, per image. raw_bytes : of it as float32. frame_bytes : mean over the images, header and
    checksum included. accuracy : percent of `images` images, top 1. agreement : percent that the network classifies as
    it does without coding.
    """

    place: int
    bits: int
    shape: tuple[int, ...]
    raw_bytes: int
    frame_bytes: float
    accuracy: float
    agreement: float
    images: int

    @property
    def fewer(self) -> float:
        """How many times fewer bytes than float32."""
        return self.raw_bytes / self.frame_bytes


def coded_table(
    network: Network, batches: Iterable[tuple[torch.Tensor, np.ndarray]], *, places: Sequence[int], bits: Sequence[int]
) -> Iterator[Coded]:
    """Measure every place with every width.

    Parameters
    ----------
    batches : (normalised images (n, channels, height, width), labels (n,)); gone through once for each place.
    places : legal cuts, in rising order; 0, the normalised image itself, may be among them.
    bits : 1..16, or 32 for float32 as it is.

    Raises
    ------
    ConfigError : a place is none of the network's, the widths are off, or there are no images.
    """
    last = len(network.spec.segments)
    if wrong := [place for place in places if not 0 <= place < last]:
        raise ConfigError(f"place {wrong[0]} is no hand-over: it must be within 0..{last - 1}")
    if wrong := [width for width in bits if not (1 <= width <= 16 or width == FLOAT_BITS)]:
        raise ConfigError(f"bits is {wrong[0]}: it must be within 1..16, or {FLOAT_BITS}")
    kept = [(images, labels) for images, labels in batches]
    if not kept:
        raise ConfigError("there are 0 images to measure on: pass at least one batch")
    with torch.no_grad():
        for place in places:
            yield from _at(network, kept, place, bits)


def _at(
    network: Network, batches: Sequence[tuple[torch.Tensor, np.ndarray]], place: int, bits: Sequence[int]
) -> Iterator[Coded]:
    last = len(network.spec.segments)
    front, rest = network.between(0, place).eval(), network.between(place, last).eval()
    features = [(front(images) if place else images, labels) for images, labels in batches]
    plain = [rest(x).argmax(1).numpy() for x, _ in features]
    count = sum(len(labels) for _, labels in features)
    shape = tuple(features[0][0].shape[1:])
    for width in bits:
        right = same = size = 0
        for (x, labels), before in zip(features, plain, strict=True):
            decoded, sent = _through(x.numpy(), width)
            found = rest(torch.from_numpy(decoded)).argmax(1).numpy()
            right += int((found == labels).sum())
            same += int((found == before).sum())
            size += sent
        yield Coded(
            place=place, bits=width, shape=shape, raw_bytes=FLOAT_BYTES * int(np.prod(shape)),
            frame_bytes=size / count, accuracy=100 * right / count, agreement=100 * same / count, images=count,
        )  # fmt: skip


def _through(x: np.ndarray, bits: int) -> tuple[np.ndarray, int]:
    """Every image of a batch coded and decoded, and the bytes of all frames."""
    decoded, size = np.empty_like(x), 0
    for i in range(len(x)):
        frame = encode(np.ascontiguousarray(x[i : i + 1]), bits)
        decoded[i : i + 1] = decode(frame, shape=(1, *x.shape[1:]))
        size += len(frame)
    return decoded, size
