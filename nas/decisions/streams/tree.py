"""A network with exits as a run to compile: every exit at every cut, so that a stream may choose among all of them.

The tree is a spine, the network in the device's hands from place to place; at every place it may be left, handed over
to some exit, or ended by an exit here. `nas compile` makes a bundle of it, `nas stream` plays it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import torch
from torch import nn

from compile.program_file import program_bytes
from modeltree.files import write_bytes
from modeltree.link.bandwidth import BandwidthTypes
from modeltree.profiles import DeviceProfile
from modeltree.tree import BandwidthFork, BitsFork, ExitFork, Fork, Handover, Leaf, ModelTree, Node, encode_tree
from nas.data.dataset import Dataset
from transforms import Network, export
from transforms.exits import head_layers

_IMAGE_BITS, _FLOAT_BITS = 8, 32
_TYPES = BandwidthTypes(
    representative_mbps=(0.5, 2.0), edges_mbps=(1.0,), transition=((0.5, 0.5), (0.5, 0.5)), initial=(0.5, 0.5)
)


class StreamTree:
    """Use `write`. accuracies : of every exit, the network's own last, in percent. bits : of a hand-over's numbers."""

    def __init__(
        self, network: Network, heads: Mapping[int, nn.Module], accuracies: Sequence[float], *, base: str,
        dataset: Dataset, device: DeviceProfile, cloud: DeviceProfile, bits: int = _IMAGE_BITS, rtt_ms: float = 4.0,
    ) -> None:  # fmt: skip
        self.network, self.heads, self.accuracies = network, dict(sorted(heads.items())), accuracies
        self.base, self.dataset, self.device, self.cloud = base, dataset, device, cloud
        self.bits, self.rtt_ms = bits, rtt_ms
        self.last = len(network.spec.segments)
        self.exits = (*self.heads, self.last)
        self._blocks: dict[str, tuple[nn.Module, tuple[int, ...]]] = {}

    def write(self, folder: Path) -> Path:
        """The run's folder: tree.json and blocks/."""
        tree = self.tree()
        write_bytes(folder / "tree.json", encode_tree(tree))
        for name, (module, shape) in self._blocks.items():
            with torch.no_grad():
                write_bytes(folder / "blocks" / f"{name}.pt2", program_bytes(export(module.eval(), shape)))
        return folder

    def tree(self) -> ModelTree:
        """All exits and cuts."""
        nodes: list[Node] = []
        parent: int | None = None
        for place in range(self.last):
            nodes += self._leaves(place, parent, len(nodes))
            name = self._block(f"s{place}", self.network.between(place, place + 1), place)
            end = Leaf(chance=1.0, latency_ms=0.0, accuracy=self.accuracies[-1], accuracy_origin="measured")
            nodes.append(Node(
                id=len(nodes), level=place, parent=parent, fork=BandwidthFork(types=(0, 1)), partition=1, segments=1,
                actions=(), device_ms=self.device.compute_ms(self.network.spec.layers(place, place + 1)), block=name,
                leaf=end if place == self.last - 1 else None,
            ))  # fmt: skip
            parent = nodes[-1].id
        children: dict[int | None, list[int]] = {}
        for node in nodes:
            children.setdefault(node.parent, []).append(node.id)
        linked = tuple(msgspec.structs.replace(node, children=tuple(children.get(node.id, ()))) for node in nodes)
        data = self.dataset
        return ModelTree(
            base=self.base, input_shape=self.network.spec.input_shape, mean=tuple(data.mean), std=tuple(data.std),
            classes=tuple(data.classes), places=tuple(range(self.last + 1)), types=_TYPES, rtt_ms=self.rtt_ms,
            device=self.device.name, cloud=self.cloud.name, trace="constant", nodes=linked, exits=self.exits[:-1],
        )  # fmt: skip

    def _leaves(self, place: int, parent: int | None, first: int) -> list[Node]:
        """Every way to leave the spine: a hand-over to each exit behind the place, and the head that stands here."""
        made: list[Node] = []
        for number, at in enumerate(self.exits, 1):
            if at > place:
                made.append(self._handover(first + len(made), place, parent, number))
            elif at == place:
                ms = self.device.compute_ms(head_layers(self.heads[place], self.network.spec.places[place].shape))
                made.append(Node(
                    id=first + len(made), level=place, parent=parent, fork=ExitFork(exit=number), partition=0,
                    segments=1, actions=(), device_ms=ms, block=self._block(f"e{number}", self.heads[place], place),
                    leaf=self._leaf(number),
                ))  # fmt: skip
        return made

    def _handover(self, number: int, place: int, parent: int | None, exit: int) -> Node:
        spec, at = self.network.spec, self.exits[exit - 1]
        rest: nn.Module = self.network.between(place, at)
        layers = list(spec.layers(place, at))
        if at < self.last:
            layers += head_layers(self.heads[at], spec.places[at].shape)
            rest = nn.Sequential(rest, self.heads[at])
        bits = _IMAGE_BITS if place == 0 else self.bits
        fork: Fork = BandwidthFork(types=()) if bits == _FLOAT_BITS or not place else BitsFork(types=(), bits=bits)
        size = spec.places[place].bytes if place == 0 else spec.places[place].bytes * bits // _FLOAT_BITS
        return Node(
            id=number, level=place, parent=parent, fork=fork, partition=0, segments=1, actions=(), device_ms=0.0,
            cloud_ms=self.cloud.compute_ms(layers), leaf=self._leaf(exit),
            handover=Handover(
                place=place, shape=spec.places[place].shape, bytes=size, bits=bits,
                block=self._block(f"r{place}x{exit}", rest, place), device_ms=self.device.compute_ms(layers),
                exit=exit if at < self.last else 0,
            ),
        )  # fmt: skip

    def _leaf(self, exit: int) -> Leaf:
        return Leaf(chance=0.0, latency_ms=0.0, accuracy=self.accuracies[exit - 1], accuracy_origin="measured")

    def _block(self, what: str, module: nn.Module, place: int) -> str:
        """A name of twenty hexadecimal digits, as content hashes have; of what it is in this network."""
        import hashlib

        digest = hashlib.sha256(f"{self.base}:{what}".encode())
        for tensor in module.state_dict().values():
            digest.update(tensor.numpy().tobytes())
        name = digest.hexdigest()[:20]
        self._blocks.setdefault(name, (module, self.network.spec.places[place].shape))
        return name
