"""What a hand-over with fewer bits costs: accuracy and bytes for every place and width, through the codec itself.

Every image crosses alone, as it would from a device: its frame is encoded, counted and decoded, and the rest of the
network goes on from the decoded numbers [Niu 2022, sec. III-A].
"""

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from modeltree.errors import ConfigError
from modeltree.network import FLOAT_BYTES
from nas.finalise.finetune import FinetuneConfig, distil_whole_
from nas.training.teacher import DistillationSet
from runtime.wire.codec import FLOAT_BITS
from runtime.wire.frames import decode, encode
from transforms.graph.network import Network
from transforms.quantise import quantised


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
    network: Network, batches: Iterable[tuple[torch.Tensor, np.ndarray]], *, places: Sequence[int], bits: Sequence[int],
    fronts: Mapping[tuple[int, int], nn.Module] | None = None,
) -> Iterator[Coded]:  # fmt: skip
    """Measure every place with every width.

    Parameters
    ----------
    batches : (normalised images (n, channels, height, width), labels (n,)); gone through once for each place.
    places : legal cuts, in rising order; 0, the normalised image itself, may be among them.
    bits : 1..16, or 32 for float32 as it is.
    fronts : by (place, bits), what runs in front of the cut in place of the network's own part (`coding_aware`).

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
            yield from _at(network, kept, place, bits, fronts or {})


def coding_aware(
    network: Network, place: int, bits: int, examples: DistillationSet, *, steps: int, lr: float = 1e-4
) -> nn.Module:  # fmt: skip
    """The part in front of a cut, trained so that the rest, which stays, answers as before when it is coded.

    Quantisation-aware fine-tuning: straight through the codes, on the network's own logits for `examples`.
    """
    front = copy.deepcopy(network.between(0, place)).requires_grad_(True)
    rest = network.between(place, len(network.spec.segments)).eval().requires_grad_(False)
    distil_whole_(_Coded(front, bits, rest), examples, FinetuneConfig(steps=steps, lr=lr))
    return front


class _Coded(nn.Module):
    def __init__(self, front: nn.Module, bits: int, rest: nn.Module) -> None:
        super().__init__()
        self.front, self.bits, self.rest = front, bits, rest

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(self.rest(quantised(self.front(images), self.bits)))


def _at(
    network: Network, batches: Sequence[tuple[torch.Tensor, np.ndarray]], place: int, bits: Sequence[int],
    fronts: Mapping[tuple[int, int], nn.Module],
) -> Iterator[Coded]:  # fmt: skip
    last = len(network.spec.segments)
    front, rest = network.between(0, place).eval(), network.between(place, last).eval()
    features = [(front(images) if place else images, labels) for images, labels in batches]
    plain = [rest(x).argmax(1).numpy() for x, _ in features]
    count = sum(len(labels) for _, labels in features)
    shape = tuple(features[0][0].shape[1:])
    for width in bits:
        right = same = size = 0
        crossing = features
        if (place, width) in fronts:
            trained = fronts[place, width].eval()
            crossing = [(trained(images), labels) for images, labels in batches]
        for (x, labels), before in zip(crossing, plain, strict=True):
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
