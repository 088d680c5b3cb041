"""A network as the searches see it: items that cost time, and the places where it may be cut. No torch."""

import math

import msgspec

from modeltree.layers import LayerSpec

FLOAT_BYTES = 4


class Item(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One step of the network: a unit (a layer with weights and what follows it channel by channel) or glue.

    name : of the tensor it makes.
    inputs : names of the items it reads; empty for the network's input.
    layers : what it costs.
    out_shape : per image, without the batch.
    unit : index of the compressible unit, None for glue (additions, concatenations, ...).
    """

    name: str
    inputs: tuple[str, ...]
    layers: tuple[LayerSpec, ...]
    out_shape: tuple[int, ...]
    unit: int | None = None

    @property
    def out_bytes(self) -> int:
        """Bytes of the output as float32."""
        return FLOAT_BYTES * math.prod(self.out_shape)


class Place(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A legal cut: exactly one tensor is alive here. Place 0 is the network's input, the last one its output.

    after : name of the item whose output crosses.
    shape : of what crosses, per image.
    bytes : of what crosses; the input image counts one byte a number, everything else four.
    """

    index: int
    after: str
    shape: tuple[int, ...]
    bytes: int


class NetworkSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Items in an order they can run in, and the legal cuts that divide them into segments.

    segments : `segments[s]` are the positions in `items` that lie between place s and place s + 1.
    """

    input_shape: tuple[int, ...]
    items: tuple[Item, ...]
    places: tuple[Place, ...]
    segments: tuple[tuple[int, ...], ...]

    def layers(self, start: int, stop: int) -> list[LayerSpec]:
        """Layers between place `start` and place `stop`, in order."""
        return [layer for s in range(start, stop) for i in self.segments[s] for layer in self.items[i].layers]

    def macs(self, start: int = 0, stop: int | None = None) -> int:
        """Multiply-accumulates between two places (the whole network by default)."""
        return sum(layer.macs for layer in self.layers(start, len(self.segments) if stop is None else stop))
