"""`nas place`: where each part of a network goes."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from modeltree.errors import ConfigError


def place(
    network: Annotated[
        str | None, typer.Argument(metavar="[RUN|BASE]", help="A run directory, a base, or path/to/file.py:factory")
    ] = None,
    servers: Annotated[
        Path | None, typer.Option("--servers", metavar="servers.json", help="The device, the servers and their links")
    ] = None,
    graph: Annotated[
        Path | None, typer.Option("--graph", metavar="FILE.json", help="A placement input: operators with their times")
    ] = None,
    objective: Annotated[
        str, typer.Option(help="'latency'; of a network also 'throughput'; of a graph also 'load', the largest")
    ] = "latency",
    contiguous: Annotated[
        bool, typer.Option("--contiguous", help="Of a graph: no part is left and entered again")
    ] = False,
    any_cut: Annotated[
        bool, typer.Option("--any-cut", help="Of a network: cut through branches too, where several tensors cross")
    ] = False,
    seconds: Annotated[
        float, typer.Option(min=0.0, help="Of a graph: time to search where the best is out of reach")
    ] = (20.0),
    classes: Annotated[int, typer.Option(min=2, help="Of a base")] = 10,
    image_size: Annotated[int, typer.Option(min=1, help="Of a base")] = 32,
    as_json: Annotated[bool, typer.Option("--json", help="Print the placement as JSON")] = False,
    bundle: Annotated[
        Path | None, typer.Option(help="Compile a block a stage into this bundle; BUNDLE.placement.json lies beside it")
    ] = None,
    target: Annotated[list[str] | None, typer.Option(help="Of the bundle; again for more. 'host' unless said")] = None,
    export: Annotated[
        str | None, typer.Option(help="'kserve': print the plan as an InferenceGraph, YAML, instead")
    ] = None,
) -> None:
    """Plan where each part of a network runs: over a device and servers, or over accelerators and CPUs."""
    if (graph is None) == (network is None):
        raise ConfigError("nothing to place, or two things: pass a network with --servers, or --graph FILE.json")
    if graph is not None:
        _place_graph(graph, objective=objective, contiguous=contiguous, seconds=seconds, as_json=as_json)
        return
    if network is None or servers is None:
        raise ConfigError("a network is placed on servers: pass --servers servers.json")
    if export not in (None, "kserve"):
        raise ConfigError(f"--export is {export!r}: must be 'kserve'")
    document, graph_yaml = _placed(
        network, servers, objective=objective, any_cut=any_cut, classes=classes, image_size=image_size, bundle=bundle,
        targets=target or ["host"],
    )  # fmt: skip
    if export:
        print(graph_yaml, end="")
    elif as_json:
        print(json.dumps(document))
    else:
        _print_plan(document)


def _place_graph(path: Path, *, objective: str, contiguous: bool, seconds: float, as_json: bool) -> None:
    from nas.decisions.placement.graphs.graph_file import read_graph
    from nas.decisions.placement.graphs.solve import solve

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


def _placed(
    network: str, servers: Path, *, objective: str, any_cut: bool, classes: int, image_size: int, bundle: Path | None,
    targets: list[str],
) -> tuple[dict[str, Any], str]:  # fmt: skip
    """The plan as a document, and as an InferenceGraph; the bundle is written if there is to be one."""
    from modeltree.errors import unknown
    from nas.decisions.placement.networks.hosts import read_hosts
    from nas.decisions.placement.networks.pipeline import OBJECTIVES

    hosts = read_hosts(servers)
    wanted = next((one for one in OBJECTIVES if one == objective), None)
    if wanted is None:
        raise unknown("objective", objective, OBJECTIVES)
    from nas.decisions.placement.networks.kserve import inference_graph
    from nas.decisions.placement.networks.network import network_of, plan_network, to_json

    described = network_of(network, classes=classes, image_size=image_size)
    found, cuts = plan_network(described.spec, hosts, wanted, every=any_cut)
    if bundle is not None:
        from compile.targets import load_target
        from nas.decisions.placement.networks.chain_bundle import write_plan

        write_plan(described, found, cuts, hosts, bundle, [load_target(name) for name in targets], base=network)
    document = to_json(described.spec, hosts, wanted, found, cuts)
    return document, inference_graph(document, name=Path(network).name.split(".")[0].split(":")[0])


def _print_plan(document: dict[str, Any]) -> None:
    for stage in document["stages"]:
        arrival = (
            f"{stage['arrival_bytes'] / 1e3:.1f} kB in {stage['arrival_ms']:.2f} ms, " if stage["arrival_ms"] else ""
        )
        print(
            f"{stage['host']}: places {stage['places'][0]} to {stage['places'][1]}, {arrival}"
            f"{stage['compute_ms']:.2f} ms, {stage['weight_bytes'] / 1e6:.1f} MB of weights"
        )
    best = "" if document["exact"] else "; not all cuts were tried"
    rate = document["images_per_second"]
    print(f"predicted: {document['latency_ms']:.2f} ms an image, {rate:.1f} images a second{best}")
