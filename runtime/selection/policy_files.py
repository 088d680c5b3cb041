"""A trained policy on disk: one .npz of plain arrays, read without trusting it.

    header    uint8 (n,)         JSON: `PolicyHeader`
    actions   int64 (actions, 4) exit, cut, bits and leaf of every action
    weight0, bias0, weight1, ... float32, the network (runtime.selection.policies.Dense)

An .npz is a zip of .npy files. Ours are stored, not deflated, so that nothing in a file is larger than the file, and a
file is no larger than `MAX_BYTES`; whatever else a zip or an .npy can be is refused, pickles first of all.
"""

import io
import math
import zipfile
import zlib
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec
import numpy as np

from modeltree.errors import ConfigError, DataError, FormatError
from modeltree.files import written_whole
from modeltree.offloading.decisions import Energy, Objective, Reward

POLICY_VERSION = 1
MAX_BYTES = 16 * 2**20
_MAX_ARRAYS = 64
_TYPES = {"header": np.uint8, "actions": np.int64}
_NPY_HEADER = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


class PolicyHeader(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a policy was trained for.

    kind : `network`, scores for every action from the state; rules need no file.
    agent, seed, trained_on : who learnt it, from which seed, on which link, in words.
    objective, reward : one of the two. budget_mj : energy an inference may take; None is no budget.
    """

    agent: str
    seed: int
    trained_on: str
    rtt_ms: float
    energy: Energy
    objective: Objective | None = None
    reward: Reward | None = None
    budget_mj: float | None = None
    kind: Literal["network"] = "network"
    format: Literal["nas-policy"] = "nas-policy"
    version: int = POLICY_VERSION

    def __post_init__(self) -> None:
        if self.version != POLICY_VERSION:
            raise FormatError(f"version is {self.version}: we read {POLICY_VERSION}; train the policy again")
        if (self.objective is None) == (self.reward is None):
            raise FormatError("a policy must have been trained for an objective or a reward, and not for both")


class PolicyFile(NamedTuple):
    """All that a file holds; actions : (actions, 4), int64. arrays : the network's, float32."""

    header: PolicyHeader
    actions: np.ndarray
    arrays: dict[str, np.ndarray]


def save(path: Path, held: PolicyFile) -> None:
    """Write a policy whole or not at all; the same policy gives the same bytes."""
    header = np.frombuffer(msgspec.json.encode(held.header), np.uint8)
    with written_whole(path) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, header=header, actions=held.actions, **held.arrays)


def load(path: Path) -> PolicyFile:
    """Read a policy.

    Raises
    ------
    DataError : the file cannot be read. FormatError : it is not a policy, or none of ours.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise FormatError(f"it has {path.stat().st_size} bytes, and a policy at most {MAX_BYTES}")
        found = read_arrays(path.read_bytes())
        missing = _TYPES.keys() - found.keys()
        if missing:
            raise FormatError(f"it has no {' and no '.join(sorted(missing))}")
        header = msgspec.json.decode(found.pop("header").tobytes(), type=PolicyHeader)
        actions = found.pop("actions")
        if actions.ndim != 2 or actions.shape[1] != 4 or not len(actions):
            raise FormatError(f"actions are {actions.shape}: they must be (actions, 4)")
        return PolicyFile(header, actions, found)
    except OSError as error:
        raise DataError(f"cannot read policy {path}: {error.strerror or error}: check the path") from error
    except (FormatError, ConfigError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise FormatError(f"{path} is not a policy: {error}: train one with `nas policy train`") from error


def read_arrays(data: bytes) -> dict[str, np.ndarray]:
    """The arrays of an .npz as `save` packs it: stored, not deflated, each once, of plain types.

    Raises
    ------
    FormatError : anything else.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as packed:
            entries = packed.infolist()
            if len(entries) > _MAX_ARRAYS:
                raise FormatError(f"it has {len(entries)} arrays, and a policy at most {_MAX_ARRAYS}")
            if any(entry.compress_type != zipfile.ZIP_STORED or entry.file_size > len(data) for entry in entries):
                raise FormatError("its arrays must be stored as they are")
            if len({entry.filename for entry in entries}) < len(entries):
                raise FormatError("an array is in it twice")
            return {
                entry.filename.removesuffix(".npy"): _array(entry.filename, packed.read(entry)) for entry in entries
            }
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, ValueError) as error:
        raise FormatError(f"it cannot be unpacked ({error})") from error


def _array(name: str, data: bytes) -> np.ndarray:
    """An .npy file's array, of the type that its name asks for, and of exactly the bytes that are there."""
    stream = io.BytesIO(data)
    try:
        shape, by_column, dtype = _NPY_HEADER[np.lib.format.read_magic(stream)](stream)
    except (KeyError, ValueError, SyntaxError, EOFError) as error:
        raise FormatError(f"{name} is no array ({error})") from error
    wanted = np.dtype(_TYPES.get(name.removesuffix(".npy"), np.float32))
    rest = data[stream.tell() :]
    if dtype != wanted or by_column or math.prod(shape) * dtype.itemsize != len(rest):
        raise FormatError(f"{name} is {dtype} {shape} in {len(rest)} bytes: it must be {wanted}, row by row, as large")
    array = np.frombuffer(rest, wanted).reshape(shape)
    if wanted.kind == "f" and not np.isfinite(array).all():
        raise FormatError(f"{name} has a number that is not finite")
    return array
