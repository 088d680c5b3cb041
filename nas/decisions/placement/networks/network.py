"""A real network, from a base or a run, planned over the hosts of a `servers.json`."""

from pathlib import Path
from typing import Any

from compile.program_file import read_program
from modeltree.network import NetworkSpec
from nas.bases import build
from nas.decisions.placement.networks.cuts import Cuts, cuts_of
from nas.decisions.placement.networks.hosts import Hosts
from nas.decisions.placement.networks.pipeline import Objective, Plan, plan
from transforms import Network, analyse, export


def network_of(source: str, *, classes: int, image_size: int) -> Network:
    """The network of a run directory, or a base by name or as `file.py:factory`.

    Raises
    ------
    FormatError, DataError : the run's base network cannot be read. ConfigError, GraphError : there is no such network.
    """
    program = Path(source) / "base.pt2"
    if program.exists():
        return analyse(read_program(program))
    return analyse(export(build(source, num_classes=classes, image_size=image_size), (3, image_size, image_size)))


def plan_network(spec: NetworkSpec, hosts: Hosts, objective: Objective, *, every: bool = False) -> tuple[Plan, Cuts]:
    """Where each part of a network runs, and the cuts that the plan's stages name.

    every : also cut through branches; without it only where one tensor is alive, which is what servers hand on.
    """
    most = max(60, int(2e8 / 2 ** len(hosts.names) / len(hosts.names)) ** 0.5)
    cuts = cuts_of(
        spec, hosts.profiles(), [host.slowdown for host in hosts.all], every=every, limit=int(min(most, 1200))
    )
    return plan(cuts, hosts, objective), cuts


def to_json(spec: NetworkSpec, hosts: Hosts, objective: Objective, plan: Plan, cuts: Cuts) -> dict[str, Any]:
    """A plan as `nas place --json` prints it. Times are predicted from the profiles."""
    stages: list[dict[str, Any]] = []
    placement: dict[str, str] = {}
    for stage in plan.stages:
        items = (cuts.items[stage.stop] & ~cuts.items[stage.start]).nonzero()[0]
        placement |= {spec.items[item].name: hosts.names[stage.host] for item in items}
        stages.append({
            "host": hosts.names[stage.host],
            "address": hosts.servers[stage.host - 1].address if stage.host else "",
            "places": [int(cuts.place[stage.start]), int(cuts.place[stage.stop])],
            "items": [spec.items[item].name for item in items],
            "compute_ms": stage.compute_ms, "arrival_ms": stage.arrival_ms, "arrival_bytes": stage.arrival_bytes,
            "weight_bytes": stage.weight_bytes,
        })  # fmt: skip
    return {
        "objective": plan.latency_ms if objective == "latency" else plan.slowest_ms,
        "placement": placement,
        "stages": stages,
        "answer_ms": plan.answer_ms,
        "latency_ms": plan.latency_ms,
        "images_per_second": 1e3 / plan.slowest_ms,
        "exact": plan.exact,
        "origin": "predicted",
    }
