"""What may happen at a place besides a plain hand-over: what is known of the base network's early exits and codes."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from modeltree.layers import LayerSpec
from modeltree.preprocessing import Preprocessing
from transforms.bottleneck import Decoder, Encoder
from transforms.exits import ExitHead

Coder = tuple[Encoder, Decoder]


class KnownExit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An early exit behind the base network.

    drop : points of accuracy lost on the search images if all samples leave. entropy, rate, loss : see
    `nas.exits.thresholds.Threshold`. layers : of the head.
    """

    exit: int
    place: int
    drop: float
    entropy: float
    rate: float
    loss: float
    layers: tuple[LayerSpec, ...]


class KnownCode(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A coded hand-over of the base network.

    kept : channels behind a learned bottleneck, 0 without one. shape : of what crosses. bytes : of the frame, mean.
    drop : points of accuracy lost on the probe images. encoder, decoder : layers of the bottleneck.
    """

    place: int
    bits: int
    kept: int
    shape: tuple[int, ...]
    bytes: float
    drop: float
    encoder: tuple[LayerSpec, ...] = ()
    decoder: tuple[LayerSpec, ...] = ()


class KnownPicture(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A way to send the picture itself.

    code : see `modeltree.image_codes`. bytes : of the file, mean. pixels : that are decoded, mean. drop : points of
    accuracy lost on the probe images.
    """

    code: str
    bytes: float
    pixels: float
    drop: float


@dataclass(frozen=True, kw_only=True, eq=False)
class KnownEndings:
    """Exits and codes of one base network, with their modules: heads by place, bottlenecks by (place, kept).

    pictures : ways to send the picture as a file. preprocessing : what makes the network's input of one; None only
    where there is none.
    """

    exits: tuple[KnownExit, ...] = ()
    codes: tuple[KnownCode, ...] = ()
    pictures: tuple[KnownPicture, ...] = ()
    preprocessing: Preprocessing | None = None
    heads: Mapping[int, ExitHead] = field(default_factory=dict)
    coders: Mapping[tuple[int, int], Coder] = field(default_factory=dict)

    def exit_at(self, place: int) -> KnownExit | None:
        """The exit at a place, if there is one."""
        return next((known for known in self.exits if known.place == place), None)

    def codes_at(self, place: int) -> list[KnownCode]:
        """The codes of a place."""
        return [known for known in self.codes if known.place == place]
