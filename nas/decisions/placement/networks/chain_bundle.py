"""From a plan to what servers and device run: a bundle with a block a stage, and the placement file beside it."""

import itertools
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from compile.bundle import Wanted, compile_run
from compile.targets import Target
from modeltree.errors import GraphError
from modeltree.files import write_bytes
from modeltree.link.bandwidth import BandwidthTypes
from modeltree.tree import BandwidthFork, Leaf, ModelTree, Node, encode_tree
from nas.decisions.placement.networks.cuts import Cuts
from nas.decisions.placement.networks.hosts import Hosts
from nas.decisions.placement.networks.pipeline import Plan
from nas.training.block_files import write_block
from runtime.chain.placement_file import DEVICE, Member, Placement, Stage, write_placement
from transforms import Network

PLACEMENT_NAME = "placement.json"


def write_chain(
    network: Network, places: Sequence[int], out: Path, targets: Sequence[Target], *, base: str,
    cache: Path | None = None,
    mean: tuple[float, ...] = (0.5, 0.5, 0.5), std: tuple[float, ...] = (0.5, 0.5, 0.5),
) -> tuple[str, ...]:  # fmt: skip
    """Compile the parts of a network between places into a bundle of one path; the blocks' hashes in their order.

    places : where the network is cut, first and last included.
    """
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder)
        (run / "blocks").mkdir()
        blocks = [
            write_block(network.between(start, stop).eval(), network.spec.places[start].shape, run / "blocks")
            for start, stop in itertools.pairwise(places)
        ]
        tree = _tree(network, places, blocks, base=base, mean=mean, std=std)
        write_bytes(run / "tree.json", encode_tree(tree))
        compile_run(run, out, Wanted(targets=targets), overwrite=True, cache=cache)
    return tuple(blocks)


def _tree(
    network: Network, places: Sequence[int], blocks: Sequence[str], *, base: str, mean: tuple[float, ...],
    std: tuple[float, ...],
) -> ModelTree:  # fmt: skip
    """One path, all on the device: what a chain is to the bundle."""
    last = len(blocks) - 1
    nodes = [
        Node(
            id=index,
            level=index,
            parent=index - 1 if index else None,
            fork=BandwidthFork(types=(0,)),
            partition=places[index + 1] - places[index],
            segments=places[index + 1] - places[index],
            actions=(),
            device_ms=0.0,
            block=block,
            leaf=Leaf(chance=1.0, latency_ms=0.0, accuracy=0.0, accuracy_origin="predicted") if index == last else None,
            children=() if index == last else (index + 1,),
        )
        for index, block in enumerate(blocks)
    ]
    types = BandwidthTypes(representative_mbps=(1.0,), edges_mbps=(), transition=((1.0,),), initial=(1.0,))
    classes = network.spec.places[-1].shape[0]
    return ModelTree(
        base=base, input_shape=network.spec.input_shape, mean=mean, std=std,
        classes=tuple(f"class {index}" for index in range(classes)), places=tuple(places), types=types, rtt_ms=0.0,
        device="placement", cloud="placement", trace="placement", nodes=tuple(nodes),
    )  # fmt: skip


def places_of(plan: Plan, cuts: Cuts) -> tuple[int, ...]:
    """The places between a plan's stages.

    Raises
    ------
    GraphError : it cuts where several tensors cross.
    """
    places = [int(cuts.place[stage.start]) for stage in plan.stages] + [int(cuts.place[plan.stages[-1].stop])]
    if min(places) < 0:
        raise GraphError("the plan cuts where several tensors cross: servers hand on one; plan without --any-cut")
    return tuple(places)


def placement_of(plan: Plan, hosts: Hosts, blocks: Sequence[str], *, spares: bool = True, bits: int = 32) -> Placement:
    """The placement file of a plan whose stages have one block each.

    spares : every other server may take a stage where the planned one fails.

    Raises
    ------
    GraphError : a device's stage lies behind a server's.
    """
    names = [server.name for server in hosts.servers]
    stages: list[Stage] = []
    for stage, block in zip(plan.stages, blocks, strict=True):
        if stage.host == 0:
            if any(one.members != (DEVICE,) for one in stages):
                raise GraphError("the plan comes back to the device: servers hand on to servers; plan for throughput")
            members: tuple[str, ...] = (DEVICE,)
        else:
            planned = hosts.names[stage.host]
            members = (planned, *(name for name in names if spares and name != planned))
        stages.append(
            Stage(blocks=(block,), members=members, expected_ms=round(stage.compute_ms + stage.arrival_ms, 4))
        )  # fmt: skip
    members_of = tuple(Member(name=server.name, address=server.address) for server in hosts.servers)
    return Placement(stages=tuple(stages), members=members_of, bits=bits)


def write_plan(
    network: Network, plan: Plan, cuts: Cuts, hosts: Hosts, out: Path, targets: Sequence[Target], *, base: str
) -> Placement:
    """Bundle and placement of a plan, into `out`."""
    with torch.no_grad():
        blocks = write_chain(network, places_of(plan, cuts), out, targets, base=base)
    placement = placement_of(plan, hosts, blocks)
    write_placement(placement, out.parent / f"{out.name}.{PLACEMENT_NAME}")
    return placement
