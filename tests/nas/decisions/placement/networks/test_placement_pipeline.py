"""Plans of real networks over hosts against every assignment of segments there is."""

import itertools

import numpy as np
import pytest

from modeltree.errors import FormatError, GraphError
from modeltree.layers import LayerSpec
from modeltree.network import Item, NetworkSpec, Place
from nas.decisions.placement.networks.cuts import cuts_of
from nas.decisions.placement.networks.hosts import Host, Hosts, Link, ServerHost, read_hosts
from nas.decisions.placement.networks.pipeline import OBJECTIVES, plan


def _item(name, inputs, channels=8, size=8):
    layer = LayerSpec(op="conv", in_channels=8, out_channels=channels, out_height=size, out_width=size, kernel=(3, 3))
    return Item(name=name, inputs=inputs, layers=(layer,), out_shape=(channels, size, size))


def _place(index, item):
    return Place(index=index, after=item.name, shape=item.out_shape, bytes=item.out_bytes)


def _network(kind, seed=0):
    rng = np.random.default_rng(seed)
    source = Item(name="x", inputs=(), layers=(), out_shape=(3, 8, 8))
    first = Place(index=0, after="x", shape=(3, 8, 8), bytes=192)
    if kind == "chain":
        items = [source]
        for index in range(5):
            size = int(rng.integers(2, 17))
            items.append(_item(f"c{index}", (items[-1].name,), int(rng.integers(4, 64)), size))
        places = (first, *(_place(i, item) for i, item in enumerate(items[1:], 1)))
        return NetworkSpec(input_shape=(3, 8, 8), items=tuple(items), places=places,
                           segments=tuple((i,) for i in range(1, 6)))  # fmt: skip
    items = [source, _item("a", ("x",)), _item("b", ("a",), 2), _item("c", ("a",)), _item("d", ("b", "c"))]
    places = (first, _place(1, items[1]), _place(2, items[4]))
    return NetworkSpec(input_shape=(3, 8, 8), items=tuple(items), places=places, segments=((1,), (2, 3, 4)))


def _hosts(memory_mb=None):
    return Hosts(
        device=Host(profile="pi4"),
        servers=(
            ServerHost(name="a", profile="phone", mbps=30.0, rtt_ms=0.2, slowdown=0.5, memory_mb=memory_mb),
            ServerHost(name="b", profile="pi4", mbps=8.0, rtt_ms=0.1, slowdown=0.3, memory_mb=memory_mb),
        ),
        between=Link(mbps=100.0, rtt_ms=0.05),
    )


def _value(cuts, hosts, devices, objective):
    """An assignment of segments to hosts, each host one run; None where a host is left and entered again."""
    runs = [(host, [index for index, _ in run]) for host, run in itertools.groupby(enumerate(devices), lambda x: x[1])]
    if len({host for host, _ in runs}) < len(runs):
        return None
    times, here = [], 0
    for host, segments in runs:
        start, stop = segments[0], segments[-1] + 1
        if cuts.weight_bytes[stop] - cuts.weight_bytes[start] > hosts.all[host].room_bytes:
            return None
        if host != here:
            link = hosts.link(here, host)
            times.append(link.rtt_ms / 2 + cuts.alive_bytes[start] / (link.mbps * 125))
        times.append(cuts.time_ms[host, stop] - cuts.time_ms[host, start])
        here = host
    if here:
        link = hosts.link(here, 0)
        times.append(link.rtt_ms / 2 + cuts.alive_bytes[-1] / (link.mbps * 125))
    return sum(times) if objective == "latency" else max(times)


@pytest.mark.parametrize("memory_mb", [None, 0.03])
@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("seed", range(4))
def test_the_plan_of_a_chain_is_the_best_of_all(seed, objective, memory_mb):
    hosts = _hosts(memory_mb)
    cuts = cuts_of(_network("chain", seed), hosts.profiles(), [host.slowdown for host in hosts.all])
    values = [_value(cuts, hosts, devices, objective) for devices in itertools.product(range(3), repeat=5)]
    found = plan(cuts, hosts, objective)
    best = min(value for value in values if value is not None)
    assert (found.latency_ms if objective == "latency" else found.slowest_ms) == pytest.approx(best)


def test_cuts_through_branches_count_every_tensor_that_crosses():
    hosts = _hosts()
    network = _network("branches")
    plain = cuts_of(network, hosts.profiles(), [1.0, 1.0, 1.0])
    every = cuts_of(network, hosts.profiles(), [1.0, 1.0, 1.0], every=True)
    assert plain.place.tolist() == [0, 1, 2]
    between = {tuple(row.nonzero()[0].tolist()): alive for row, alive in zip(every.items, every.alive_bytes)}
    a, b, c = (network.items[index].out_bytes for index in (1, 2, 3))
    assert between == {(0,): 192, (0, 1): a, (0, 1, 2): a + b, (0, 1, 3): a + c, (0, 1, 2, 3): b + c,
                       (0, 1, 2, 3, 4): network.places[2].bytes}  # fmt: skip
    assert plan(every, hosts, "latency").latency_ms <= plan(plain, hosts, "latency").latency_ms


def test_memory_that_is_too_small_is_an_error():
    hosts = Hosts(device=Host(profile="pi4", memory_mb=1e-6), servers=(), between=Link(mbps=1.0))
    with pytest.raises(GraphError, match="memory"):
        plan(cuts_of(_network("chain"), hosts.profiles(), [1.0]), hosts, "latency")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "does not describe servers"),
        ('{"device": {"profile": "pi4"}, "servers": [{"name": "device", "profile": "pi4", "mbps": 1}], '
         '"between": {"mbps": 1}}', "a name of its own"),
        ('{"device": {"profile": "pi4"}, "servers": [], "between": {"mbps": 0}}', "must be above 0"),
    ],
)  # fmt: skip
def test_a_servers_file_that_is_off_is_refused(tmp_path, text, message):
    path = tmp_path / "servers.json"
    path.write_text(text)
    with pytest.raises(FormatError, match=message):
        read_hosts(path)
