"""What a tree met where it ran, beside what it had predicted: what a later search may reckon with instead.

Written by field runs (as `met` in field.json) and by sessions (`nas run --met`). Times are medians in ms. "Predicted"
is what the tree said, from the profiles that it was searched with, so that met over predicted mends those profiles.
"""

from pathlib import Path
from typing import Literal

import msgspec

from modeltree.errors import DataError, FormatError
from modeltree.files import write_bytes
from modeltree.layers import LayerSpec
from modeltree.tree import Handover, ModelTree

MET_FORMAT, MET_VERSION = "nas-met", 1


NOTHING_MS = 0.2
"""A part that was predicted, and met, to take less is left out: its error in percent would say nothing."""


class Timed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Something that was predicted to take a time, and took another, on the median of `count` times.

    spread : half of the range that the middle half of the times lies in; 0: not known.
    layers : what it is made of, where the search that it comes from was at hand (`nas refit --run`).
    """

    predicted_ms: float
    ms: float
    count: int
    spread: float = 0.0
    layers: tuple[LayerSpec, ...] = ()


class Encoded(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Coding what crosses.

    code : `raw`, `came`, `jpeg:75`, ... of a picture, else `4 bits`. units : pixels or numbers that are coded.
    """

    code: str
    units: int
    predicted_ms: float
    ms: float
    count: int


class Crossed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Hand-overs, on the median.

    predicted_ms : what the link should have taken, ms : what it took, the round trip in both.
    rtt_ms : the link's usual round trip. extra_ms : what it took beyond that and its bytes' time.
    message_bytes : what was sent beyond the bytes that the tree says cross.
    error, mended_error : of single hand-overs, the median of |met - predicted| over met, and what is left of it where
        `extra_ms` and the bytes that were sent are reckoned with; None: not known.
    """

    predicted_ms: float
    ms: float
    rtt_ms: float
    extra_ms: float
    message_bytes: float
    count: int
    error: float | None = None
    mended_error: float | None = None


class Estimated(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How well the link was known. error : median |ln(met / estimated)| of its bandwidth. right : share of types."""

    error: float
    right: float
    count: int


class Met(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of it, for trees of one search.

    device, cloud : names of the profiles that the tree was searched with.
    kind, origin : what was run, in a word and in several.
    blocks : of what ran on the device, by its content. rests : of the server's own time, by content and code.
    crossed, estimates : None where nothing crossed.
    """

    format: str = MET_FORMAT
    version: int = MET_VERSION
    kind: Literal["field", "session"]
    device: str
    cloud: str
    origin: str
    blocks: dict[str, Timed]
    rests: dict[str, Timed]
    encodings: tuple[Encoded, ...]
    crossed: Crossed | None = None
    estimates: Estimated | None = None


class _Holder(msgspec.Struct, frozen=True, kw_only=True):
    """A field run, of which no more is asked than what it met."""

    met: Met | None = None


def predicted_ms(tree: ModelTree) -> dict[str, float]:
    """Block or rest -> ms that the tree predicts for it on the device, coding left out; what it does not know is not
    there."""
    found: dict[str, float] = {}
    for node in tree.nodes:
        if node.handover is not None and node.handover.device_ms > 0:
            found.setdefault(node.handover.block, node.handover.device_ms)
    for node in tree.nodes:
        if node.block:
            found[node.block] = node.device_ms - (node.handover.encode_ms if node.handover is not None else 0.0)
    return found


def code_of(handover: Handover) -> str:
    """How something crosses, in a word or two."""
    return (handover.code or "raw") if not handover.place else f"{handover.bits} bits"


def coding_of(handover: Handover) -> str:
    """What coding a hand-over goes by where a slower device is played; no block has such a name."""
    return f"coding {code_of(handover)} at {handover.place}"


def write_met(met: Met, path: Path) -> None:
    """Write it as JSON, whole or not at all."""
    write_bytes(path, msgspec.json.format(msgspec.json.encode(met), indent=1) + b"\n")


def read_met(path: Path) -> Met:
    """What a session or a field run met; a folder is one with a field.json.

    Raises
    ------
    DataError : it cannot be read. FormatError : it is neither, or a field run of before, which kept nothing.
    """
    path = path / "field.json" if path.is_dir() else path
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"cannot read {path}: {error.strerror or error}: pass what nas field or nas run --met wrote"
        ) from error
    try:
        found = msgspec.json.decode(data, type=_Holder).met or msgspec.json.decode(data, type=Met)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise FormatError(
            f"{path} does not say what was met ({error}): pass the field.json of nas field, or what nas run --met wrote"
        ) from error
    if (found.format, found.version) != (MET_FORMAT, MET_VERSION):
        raise FormatError(
            f"{path} is {found.format!r} version {found.version}: it must be {MET_FORMAT!r} {MET_VERSION}; run it again"
        )
    return found
