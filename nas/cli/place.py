"""`nas place`: where each part of a network goes."""

import json
from pathlib import Path
from typing import Annotated

import typer

from modeltree.errors import ConfigError


def place(
    graph: Annotated[
        Path | None, typer.Option("--graph", metavar="FILE.json", help="A placement input: operators with their times")
    ] = None,
    objective: Annotated[str, typer.Option(help="'load' (the largest of any processor) or 'latency'")] = "latency",
    contiguous: Annotated[
        bool, typer.Option("--contiguous", help="No part of the network is left and entered again")
    ] = False,
    seconds: Annotated[float, typer.Option(help="Time to search where the best is out of reach")] = 20.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the placement as JSON")] = False,
) -> None:
    """Plan where each part of a network runs."""
    if graph is None:
        raise ConfigError("nothing to place: pass --graph FILE.json")
    _place_graph(graph, objective=objective, contiguous=contiguous, seconds=seconds, as_json=as_json)


def _place_graph(path: Path, *, objective: str, contiguous: bool, seconds: float, as_json: bool) -> None:
    from nas.decisions.placement.graph_file import read_graph
    from nas.decisions.placement.solve import solve

    solution = solve(read_graph(path), objective=objective, contiguous=contiguous, seconds=seconds)
    document = solution.to_json()
    if as_json:
        print(json.dumps(document))
        return
    for name, devices in (("fpga", document["fpgas"]), ("cpu", document["cpus"])):
        for index, device in enumerate(devices):
            print(f"{name}{index}: {len(device['nodes'])} nodes, load {device['load']:.4f}")
    proof = "the best there is" if solution.exact else f"no placement gets below {solution.bound:.4f}"
    print(f"{objective} {solution.objective:.4f} ({proof})")
