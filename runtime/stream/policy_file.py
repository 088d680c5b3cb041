"""A planner that an agent learnt, on disk: an .npz of plain arrays, as `runtime.selection.policy_files` has them."""

from pathlib import Path
from typing import Literal

import msgspec
import numpy as np

from modeltree.errors import ConfigError, DataError, FormatError
from modeltree.files import written_whole
from modeltree.streams.costs import ActionTable
from modeltree.streams.system import StreamSystem
from runtime.selection.policies import Dense
from runtime.selection.policy_files import MAX_BYTES, read_arrays
from runtime.stream.learned import OBSERVED, Learned

STREAM_POLICY_VERSION = 1


class StreamPolicyHeader(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What it was trained for: agent and seed, the arrivals, the link; and the network's activation.

    longest_ms : what the observer divides times by.
    """

    agent: str
    seed: int
    p: float
    k: float
    devices: int
    slot_ms: float
    mbps: float
    longest_ms: float
    activation: str
    format: Literal["nas-stream-policy"] = "nas-stream-policy"
    version: int = STREAM_POLICY_VERSION

    def __post_init__(self) -> None:
        if self.version != STREAM_POLICY_VERSION:
            raise FormatError(f"version is {self.version}: we read {STREAM_POLICY_VERSION}; train the policy again")
        if not 0 < self.longest_ms < float("inf"):
            raise FormatError(f"longest_ms is {self.longest_ms}: it must be finite and above 0")


def actions_of(table: ActionTable) -> np.ndarray:
    """(actions, 4), int64: by which a policy knows the table that it was trained for."""
    zeros = np.zeros(len(table), np.int64)
    return np.stack([table.exit, table.cut, table.on_device.astype(np.int64), zeros], axis=1).astype(np.int64)


def write_stream_policy(path: Path, header: StreamPolicyHeader, table: ActionTable, network: Dense) -> None:
    """Write it whole or not at all; the same policy gives the same bytes."""
    packed = np.frombuffer(msgspec.json.encode(header), np.uint8)
    with written_whole(path) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, header=packed, actions=actions_of(table), **network.arrays())


def read_stream_policy(path: Path, system: StreamSystem) -> tuple[StreamPolicyHeader, Learned]:
    """A policy from a file, for the actions that it was trained on.

    Raises
    ------
    DataError : the file cannot be read. FormatError : it is not a stream's policy, or one for other actions.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise FormatError(f"it has {path.stat().st_size} bytes, and a policy at most {MAX_BYTES}")
        arrays = read_arrays(path.read_bytes())
        if missing := {"header", "actions"} - arrays.keys():
            raise FormatError(f"it has no {' and no '.join(sorted(missing))}")
        header = msgspec.json.decode(arrays.pop("header").tobytes(), type=StreamPolicyHeader)
        actions, network = arrays.pop("actions"), Dense.from_arrays(arrays, header.activation)
        if not np.array_equal(actions, actions_of(system.table)):
            raise FormatError("it was trained for other exits and cuts: train one for these")
        if (len(network.weights[0]), len(network.biases[-1])) != (OBSERVED, len(system.table)):
            raise FormatError(f"its network must map {OBSERVED} numbers to {len(system.table)} actions")
    except OSError as error:
        raise DataError(f"cannot read policy {path}: {error.strerror or error}: check the path") from error
    except (FormatError, ConfigError, DataError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise FormatError(
            f"{path} is no policy of a stream: {error}: train one with `nas policy train --env stream`"
        ) from error
    return header, Learned(system=system, network=network, longest_ms=header.longest_ms)
