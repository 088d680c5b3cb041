"""The minimum cut against trying every division."""

import itertools

import numpy as np
import pytest

from modeltree.layers import LayerSpec
from modeltree.network import Item, NetworkSpec, Place
from modeltree.profiles import load_profile
from nas.treesearch.surgery import legal_place, priced, surgery

IMAGE = (3, 16, 16)


def conv(rng, channels=8):
    return LayerSpec(
        op="conv", in_channels=int(rng.integers(4, 64)), out_channels=channels, out_height=8, out_width=8,
        kernel=(3, 3), padding=(1, 1),
    )  # fmt: skip


def network(rng, edges, cuts):
    """Items 0..n in order; edges from -1, the image. `cuts` are the items behind which one tensor is alive."""
    names = {-1: "image"} | {i: f"item{i}" for i in range(max(j for _, j in edges) + 1)}
    items = [Item(name="image", inputs=(), layers=(), out_shape=IMAGE)]
    for i in range(len(names) - 1):
        inputs = tuple(sorted(names[a] for a, b in edges if b == i))
        joins = len(inputs) > 1
        channels = int(rng.integers(1, 40))
        layers = () if joins else (conv(rng, channels),)
        items.append(Item(name=names[i], inputs=inputs, layers=layers, out_shape=(channels, 8, 8)))
    places = [
        Place(index=p, after=names[i], shape=items[i + 1].out_shape, bytes=items[i + 1].out_bytes)
        for p, i in enumerate([-1, *cuts])
    ]
    segments = tuple(tuple(range(a + 2, b + 2)) for a, b in itertools.pairwise([-1, *cuts]))
    return NetworkSpec(input_shape=IMAGE, items=tuple(items), places=tuple(places), segments=segments)


CHAIN = ([(i - 1, i) for i in range(6)], [0, 1, 2, 3, 4, 5])
RESIDUAL = ([(-1, 0), (0, 1), (1, 2), (0, 3), (2, 3), (3, 4)], [0, 3, 4])  # 3 adds what 0 and 2 make
DENSE = ([(-1, 0), (0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3), (3, 4)], [0, 3, 4])  # every layer reads all before
INCEPTION = ([(-1, 0), (0, 1), (0, 2), (0, 3), (1, 4), (2, 4), (3, 4), (4, 5)], [0, 4, 5])  # three side by side
GRAPHS = {"chain": CHAIN, "residual": RESIDUAL, "dense": DENSE, "inception": INCEPTION}
every_graph = pytest.mark.parametrize("graph", GRAPHS)

DEVICE, CLOUD = load_profile("phone"), load_profile("cloud_gpu")


def divisions(spec):
    """Every set of items on the device from which nothing comes back from the cloud."""
    positions = {item.name: i for i, item in enumerate(spec.items)}
    for choice in itertools.product([False, True], repeat=len(spec.items) - 1):
        stays = frozenset({0} | {i + 1 for i, here in enumerate(choice) if here})
        if all(positions[name] in stays for i in stays for name in spec.items[i].inputs):
            yield stays


def link(mbps):
    """Without a round trip: then tensors that cross together cost what they cost alone."""
    return lambda size: size * 8e-3 / mbps


@every_graph
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("mbps", [1.0, 20.0, 200.0])
def test_no_division_is_faster_than_the_cut(graph, seed, mbps):
    spec = network(np.random.default_rng(seed), *GRAPHS[graph])
    cut = surgery(spec, DEVICE, CLOUD, link(mbps))
    best = min(priced(spec, stays, DEVICE, CLOUD, link(mbps)).latency_ms for stays in divisions(spec))
    assert cut.latency_ms == pytest.approx(best)
    assert cut.device in set(divisions(spec))


def crossing_of(spec, stays):
    return priced(spec, stays, DEVICE, CLOUD, link(1.0)).crossing


@every_graph
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("rtt_ms", [0.5, 20.0])
@pytest.mark.parametrize("mbps", [1.0, 20.0, 200.0])
def test_with_a_round_trip_the_cut_is_never_worse_than_one_that_a_single_tensor_crosses(graph, seed, rtt_ms, mbps):
    """Every legal place is such a division, and so is staying on the device, where nothing crosses."""
    spec = network(np.random.default_rng(seed), *GRAPHS[graph])

    def transfer_ms(size):
        return rtt_ms + link(mbps)(size)

    cut = surgery(spec, DEVICE, CLOUD, transfer_ms)
    single = [stays for stays in divisions(spec) if len(crossing_of(spec, stays)) <= 1]
    places = {frozenset(range(1 + sum(map(len, spec.segments[:p])))) for p in range(len(spec.places))}
    assert places <= set(single)
    best = min(priced(spec, stays, DEVICE, CLOUD, transfer_ms).latency_ms for stays in single)
    assert cut.latency_ms <= best + 1e-9
    assert cut == priced(spec, cut.device, DEVICE, CLOUD, transfer_ms)


@every_graph
def test_over_a_fast_link_all_goes_to_the_cloud(graph):
    spec = network(np.random.default_rng(0), *GRAPHS[graph])
    cut = surgery(spec, DEVICE, CLOUD, link(1e9))
    assert cut.device == {0}
    assert cut.crossing == (0,)
    assert legal_place(spec, cut) == 0


@every_graph
def test_over_a_slow_link_all_stays_on_the_device(graph):
    spec = network(np.random.default_rng(0), *GRAPHS[graph])
    cut = surgery(spec, DEVICE, CLOUD, link(1e-6))
    assert cut.device == set(range(len(spec.items)))
    assert legal_place(spec, cut) == len(spec.segments)
    assert cut.latency_ms == pytest.approx(sum(DEVICE.compute_ms(item.layers) for item in spec.items))


def test_a_division_is_priced_as_it_would_run():
    """Residual, cut behind items 0 and 1: both outputs cross in one hand-over, the image does not."""
    spec = network(np.random.default_rng(0), *RESIDUAL)
    cut = priced(spec, frozenset({0, 1, 2}), DEVICE, CLOUD, lambda size: 10 + 1e-6 * size)
    here = sum(DEVICE.layer_ms(spec.items[i].layers[0]) for i in (1, 2))
    there = sum(CLOUD.layer_ms(spec.items[i].layers[0]) for i in (3, 5))
    size = 4 * 64 * (spec.items[1].out_shape[0] + spec.items[2].out_shape[0])
    assert cut.crossing == (1, 2)
    assert cut.latency_ms == pytest.approx(here + there + 10 + 1e-6 * size)
    assert legal_place(spec, cut) is None


def test_the_image_counts_one_byte_a_number():
    spec = network(np.random.default_rng(0), *CHAIN)
    sent = []
    priced(spec, frozenset({0}), DEVICE, CLOUD, lambda size: sent.append(size) or 0.0)
    assert sent == [3 * 16 * 16]


def test_a_cut_behind_one_tensor_is_the_place_behind_it():
    spec = network(np.random.default_rng(0), *RESIDUAL)
    cut = priced(spec, frozenset({0, 1}), DEVICE, CLOUD, link(1.0))
    assert legal_place(spec, cut) == 1
    inside = priced(spec, frozenset({0, 1, 2, 3, 4}), DEVICE, CLOUD, link(1.0))
    assert legal_place(spec, inside) == 2
