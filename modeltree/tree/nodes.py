"""The nodes of a model tree: the forks they stand on, what is done to their layers, what they hand over, how they end.

Each node is a block of the base network, compressed or not, chosen for the condition its fork stands for.
"""

import math
from typing import Annotated

import msgspec

from modeltree.errors import ConfigError, FormatError
from modeltree.image_codes import image_code


class BandwidthFork(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="bandwidth"):
    """Taken when the measured bandwidth is of one of these types."""

    types: tuple[int, ...]


class ExitFork(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True, tag="exit"
):  # fmt: skip
    """Leaves through an early exit, on the device.

    exit : which one, from 1, the earliest.
    types : taken when the bandwidth is of one of these. The node's block is its part of the network and the head in
        one.
    entropy : in nats; taken when the sample is sure enough: the softmax of the head's logits has at most this entropy.
        The node is a child of one that goes on, and its block is the head alone, on what the parent's block gives.

    With neither, only a policy takes it; its block is as with types.
    """

    exit: int
    types: tuple[int, ...] = ()
    entropy: float | None = None

    def __post_init__(self) -> None:
        if self.entropy is not None and not (math.isfinite(self.entropy) and self.entropy >= 0):
            raise FormatError(f"the entropy of exit {self.exit} is {self.entropy}: it must be finite, at least 0 nats")
        if self.types and self.entropy is not None:
            raise FormatError(
                f"exit {self.exit} is taken by bandwidth types {list(self.types)} and by entropy {self.entropy:g}: "
                "it must be one of the two, make it two forks"
            )


class BitsFork(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="bits"):
    """Hands over with this many bits a number when the bandwidth is of one of these types; without types, only a policy
    takes it.

    bits : 1 to 16; 32 means unquantised.
    """

    types: tuple[int, ...]
    bits: int

    def __post_init__(self) -> None:
        if not (1 <= self.bits <= 16 or self.bits == 32):
            raise FormatError(f"a hand-over has {self.bits} bits a number: it must be 1..16, or 32 for unquantised")


Fork = BandwidthFork | ExitFork | BitsFork


class Action(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is done to one layer: a technique and its rate, or `keep`, or `absorbed` by a technique in front (F3)."""

    layer: str
    technique: str
    rate: float = 1.0


BlockName = Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{20})?\Z")]
"""A block's content hash; empty where there is none. It becomes a file's name, so that it is nothing else."""


FormatName = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,31}\Z")]


class Handover(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The tensor that crosses to the cloud.

    place : of the whole network; 0 is the input image.
    shape, bytes : per image; the input counts one byte a number. Below 32 bits, the mean on the wire, after coding.
    bits : a number's width on the wire; 32 is unquantised (8 for the input image).
    block : content hash of the base network's rest, which the cloud runs.
    encode_ms : predicted, of the node's `device_ms`: coding and packing what crosses. Not written where it is 0.
    device_ms : predicted, the rest on the device, where it goes on when the cloud does not answer; 0: not known.
    exit : number of the early exit that the rest ends with, from 1; 0 is the network's end, and not written.
    code : how the input image crosses (`modeltree.image_codes`); empty is raw, and not written. `bytes` is then the
        mean size of the files.
    """

    place: int
    shape: tuple[int, ...]
    bytes: int
    bits: int
    block: BlockName = msgspec.field(default_factory=lambda: "")  # a factory's default is always written
    device_ms: float = msgspec.field(default_factory=lambda: 0.0)
    exit: int = 0
    code: str = ""
    encode_ms: float = 0.0

    def __post_init__(self) -> None:
        if self.code:
            if self.place:
                raise FormatError(f"place {self.place} is handed over as {self.code}: only the image, place 0, can be")
            try:
                image_code(self.code)
            except ConfigError as error:
                raise FormatError(f"a hand-over's code is off: {error}") from error


class Leaf(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a complete path is worth.

    chance : that the path is taken, under the forks' chances and the shares of the samples that leave by confidence.
    latency_ms : predicted. accuracy : percent; accuracy_origin : `predicted` or `measured`.
    """

    chance: float
    latency_ms: float
    accuracy: float
    accuracy_origin: str


class Node(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One block on one fork.

    level : which block of the base network, from 0. parent : None at the first level.
    partition : how many of the block's segments run on the device, `segments` for all of them; a head is no segment.
    actions : one per compressible layer that runs here.
    block : content hash of the device's part; empty where nothing runs here.
    device_ms, transfer_ms, cloud_ms : predicted; transfer and cloud time are 0 unless the node hands over.
    leaf : only where the path ends.
    number_format : that the block is computed in, by its name in `nas compile --weights`; f32 is not written.
    """

    id: int
    level: int
    parent: int | None
    fork: Fork
    partition: int
    segments: int
    actions: tuple[Action, ...]
    device_ms: float
    transfer_ms: float = msgspec.field(default_factory=lambda: 0.0)  # a factory's default is always written
    cloud_ms: float = msgspec.field(default_factory=lambda: 0.0)
    block: BlockName = msgspec.field(default_factory=lambda: "")
    handover: Handover | None = msgspec.field(default_factory=lambda: None)
    leaf: Leaf | None = msgspec.field(default_factory=lambda: None)
    children: tuple[int, ...] = msgspec.field(default_factory=lambda: ())
    number_format: FormatName = "f32"


def by_confidence(node: Node) -> bool:
    """Whether a node is an exit that sure samples leave through."""
    return isinstance(node.fork, ExitFork) and node.fork.entropy is not None
