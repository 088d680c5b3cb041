"""Networks as chains of blocks: work, parameters and feature sizes, as the environment needs them [Li 2023, sec. 3.2].

`blocks.json` beside this module holds the paper's four networks for CIFAR-10 in their finest parts (convolutions and
linear layers with what follows them element by element, pools; in ResNet32 whole residual blocks), written from the
networks themselves by `python benchmarks/placement.py blocks`.
"""

from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from modeltree.errors import ConfigError, unknown
from modeltree.layers import LayerSpec
from modeltree.network import FLOAT_BYTES, NetworkSpec

NETWORKS = ("alexnet", "nin", "resnet32", "vgg16")


class Chain(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A network in its finest parts, each (MACs, numbers made, parameter bytes, output bytes)."""

    input_bytes: int
    atoms: tuple[tuple[int, int, int, int], ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Blocks:
    """A network in M blocks; arrays (M,). operations : multiply-accumulates and single operations.

    in_bytes : of what each block reads: the image, then feature maps in float32.
    """

    network: str
    operations: np.ndarray
    parameter_bytes: np.ndarray
    in_bytes: np.ndarray

    def __len__(self) -> int:
        return len(self.operations)


def load_blocks(network: str, count: int) -> Blocks:
    """A network in `count` blocks whose largest work is least.

    Raises
    ------
    ConfigError : an unknown network, or one that does not have so many parts.
    """
    chain = load_chain(network)
    atoms = np.array(chain.atoms, float)
    if not 1 <= count <= len(atoms):
        raise ConfigError(f"{network} in {count} blocks: it has {len(atoms)} parts; ask for 1 to {len(atoms)} blocks")
    work = atoms[:, 0] + atoms[:, 1]
    bounds = _even(work, count)
    reads = np.concatenate([[chain.input_bytes], atoms[:-1, 3]])
    return Blocks(
        network=network,
        operations=np.add.reduceat(work, bounds[:-1]),
        parameter_bytes=np.add.reduceat(atoms[:, 2], bounds[:-1]),
        in_bytes=reads[bounds[:-1]],
    )


def load_chain(network: str) -> Chain:
    """The finest parts of a network."""
    if network not in NETWORKS:
        raise unknown("network", network, NETWORKS)
    data = (Path(__file__).parent / "blocks.json").read_bytes()
    return msgspec.json.decode(data, type=dict[str, Chain])[network]


def atoms_of(spec: NetworkSpec) -> list[tuple[int, int, int, int]]:
    """The finest parts of a described network, see `Chain`."""
    groups: list[list[LayerSpec]] = []
    for segment in spec.segments:
        layers = [layer for item in segment for layer in spec.items[item].layers]
        opened = False
        for layer in layers:
            starts = layer.op in ("conv", "fc", "pool") and (not opened or len(segment) == 1)
            if (starts or not opened) and not (groups and layer.op == "move"):
                groups.append([])
            opened = True
            groups[-1].append(layer)
    return [
        (
            sum(layer.macs for layer in group),
            sum(layer.elements for layer in group if layer.op in ("pool", "elementwise")),
            sum(layer.weight_bytes for layer in group),
            FLOAT_BYTES * group[-1].elements,
        )
        for group in groups
    ]


def _even(work: np.ndarray, count: int) -> np.ndarray:
    """(count + 1,): bounds of runs whose largest sum is least."""
    total = np.concatenate([[0.0], np.cumsum(work)])
    size = len(work)
    best = np.full((count + 1, size + 1), np.inf)
    origin = np.zeros((count + 1, size + 1), int)
    best[0, 0] = 0.0
    for run in range(1, count + 1):
        for stop in range(run, size + 1):
            worst = np.maximum(best[run - 1, :stop], total[stop] - total[:stop])
            origin[run, stop] = worst.argmin()
            best[run, stop] = worst.min()
    bounds = [size]
    for run in range(count, 0, -1):
        bounds.append(int(origin[run, bounds[-1]]))
    return np.array(bounds[::-1])
