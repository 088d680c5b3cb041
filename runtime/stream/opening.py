"""From a name to a planner, and from a session to its stream."""

import math
import re
from pathlib import Path

from modeltree.errors import ConfigError, unknown
from modeltree.streams.costs import ActionTable
from modeltree.streams.system import PAPER_MBPS, Planner, StreamSystem
from modeltree.streams.tasks import Arrivals
from runtime.execution.device import Device
from runtime.remote.offload_client import Cloud, Link
from runtime.stream.calibration import calibrated
from runtime.stream.pipeline import TaskStream
from runtime.stream.planners import PLANNERS, fixed
from runtime.stream.policy_file import read_stream_policy
from runtime.stream.rolling import RollingHorizon
from runtime.stream.ways import ways_of

PLANNER_NAMES = (*sorted(PLANNERS), "rolling")


def check_planner(name: str) -> None:
    """Refuse a name that `open_planner` does not know, before there is a system to open it for.

    Raises
    ------
    ConfigError : an unknown name, or a file that is not there.
    """
    if name.endswith(".npz"):
        if not Path(name).is_file():
            raise ConfigError(f"no file {name}: pass what nas policy train wrote")
    elif not re.fullmatch(r"\d+/\d+", name) and name not in PLANNER_NAMES:
        raise unknown("planner", name, [*PLANNER_NAMES, "EXIT/CUT", "FILE.npz"])


def open_planner(name: str, system: StreamSystem, arrivals: Arrivals | None = None) -> Planner:
    """A planner by name, or from the file of a trained one.

    arrivals : statistics that `rolling` has to know.

    Raises
    ------
    ConfigError : an unknown name, or no statistics for `rolling`. DataError, FormatError : the file is off.
    """
    if name.endswith(".npz"):
        return read_stream_policy(Path(name), system)[1]
    if re.fullmatch(r"\d+/\d+", name):
        exit, cut = map(int, name.split("/"))
        return fixed(system, exit, cut)
    if name == "rolling":
        if arrivals is None:
            raise ConfigError("planner rolling needs to know how tasks come: pass arrivals, or use edf")
        return RollingHorizon(system, arrivals)
    if name not in PLANNERS:
        raise unknown("planner", name, [*PLANNER_NAMES, "EXIT/CUT", "FILE.npz"])
    return PLANNERS[name](system)


def open_stream(
    device: Device, cloud: Cloud | None, link: Link, *, planner: str = "edf", arrivals: Arrivals | None = None,
    table: ActionTable | None = None, order: str = "fcfs", pipelined: bool = True, mbps: float = PAPER_MBPS,
) -> TaskStream:  # fmt: skip
    """The stream of a device, and of its server where there is one.

    table : what the ways take; measured now unless given, which takes seconds on a slow link.
    mbps : of the link while nobody has measured it. order, pipelined : see `TaskStream`.

    Raises
    ------
    NasError : the tree has no way for a stream, the planner is off, or measuring failed.
    """
    ways = ways_of(device.manifest.tree)
    if table is None:
        table = calibrated(device, ways, None if cloud is None else cloud.transport)
    if len(table) != len(ways) + 1:
        raise ConfigError(f"the table has {len(table) - 1} ways and the tree {len(ways)}: measure this bundle")
    system = StreamSystem(table=table, mbps=mbps, strict=False)

    def bandwidth() -> float:
        known = link.bandwidth_type()[1]
        return known if math.isfinite(known) and known > 0 else mbps

    return TaskStream(
        device, cloud, ways, system, open_planner(planner, system, arrivals), order=order, pipelined=pipelined,
        bandwidth=bandwidth,
    )  # fmt: skip
