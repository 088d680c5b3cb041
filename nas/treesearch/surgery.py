"""Dynamic DNN surgery: the best partition of a network without compression, as a minimum cut [Hu 2019].

Every item of the network runs on the device or in the cloud. A cut between the two sides of the graph costs the device
time of what stays, the cloud time of what goes, and the transfer of every tensor that crosses, once each.
"""

from collections.abc import Callable
from typing import NamedTuple

import networkx

from modeltree.network import FLOAT_BYTES, NetworkSpec
from modeltree.profiles import DeviceProfile


class Cut(NamedTuple):
    """What stays on the device (positions in `spec.items`), the tensors that cross, and the latency."""

    device: frozenset[int]
    crossing: tuple[int, ...]
    latency_ms: float


def surgery(spec: NetworkSpec, device: DeviceProfile, cloud: DeviceProfile, transfer_ms: Callable[[int], float]) -> Cut:
    """The cut of least latency for one bandwidth.

    transfer_ms : milliseconds to hand over so many bytes, the round trip included; tensors that cross together share
        one hand-over in the latency returned.
    """
    positions = {item.name: i for i, item in enumerate(spec.items)}
    readers: dict[int, list[int]] = {i: [] for i in positions.values()}
    for i, item in enumerate(spec.items):
        for name in item.inputs:
            readers[positions[name]].append(i)
    flow = networkx.DiGraph()
    for i, item in enumerate(spec.items):
        if not item.inputs:
            flow.add_edge("device", i)  # no capacity: the image is taken on the device
        else:
            flow.add_edge("device", i, capacity=cloud.compute_ms(item.layers))
            flow.add_edge(i, "cloud", capacity=device.compute_ms(item.layers))
        if readers[i]:
            flow.add_edge(i, ("tensor", i), capacity=transfer_ms(_bytes(spec, i)))
        for reader in readers[i]:
            flow.add_edge(("tensor", i), reader)
            flow.add_edge(reader, i)  # nothing comes back from the cloud to the device
    if not any("capacity" in flow.edges[e] and e[1] == "cloud" for e in flow.edges):
        flow.add_node("cloud")
    _, (near, _) = networkx.minimum_cut(flow, "device", "cloud")
    stays = frozenset(i for i in positions.values() if i in near)
    return priced(spec, stays, device, cloud, transfer_ms)


def priced(
    spec: NetworkSpec, stays: frozenset[int], device: DeviceProfile, cloud: DeviceProfile,
    transfer_ms: Callable[[int], float],
) -> Cut:  # fmt: skip
    """The latency of a given division."""
    positions = {item.name: i for i, item in enumerate(spec.items)}
    crossing = sorted(
        {positions[name] for i, item in enumerate(spec.items) if i not in stays for name in item.inputs} & stays
    )
    latency = sum(
        (device if i in stays else cloud).compute_ms(item.layers) for i, item in enumerate(spec.items) if item.inputs
    )
    if crossing:
        latency += transfer_ms(sum(_bytes(spec, i) for i in crossing))
    return Cut(stays, tuple(crossing), latency)


def legal_place(spec: NetworkSpec, cut: Cut) -> int | None:
    """The place of a cut that one tensor crosses; the last place if nothing crosses; None for any other cut."""
    if not cut.crossing:
        return len(spec.segments)
    if len(cut.crossing) > 1:
        return None
    after = spec.items[cut.crossing[0]].name
    return next((place.index for place in spec.places if place.after == after), None)


def _bytes(spec: NetworkSpec, item: int) -> int:
    size = spec.items[item].out_bytes
    return size if spec.items[item].inputs else size // FLOAT_BYTES
