"""The model tree itself: its nodes and what they were searched for; read, written and checked.

A path from a first-level node to a leaf is a complete network: the device runs the nodes' blocks one after the other
until a leaf, or until a node hands the rest over to the cloud [Wang 2020, sec. VI-A].
"""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator

import msgspec

from modeltree.errors import ConfigError, DataError, FormatError
from modeltree.link.bandwidth import BandwidthTypes
from modeltree.outputs import Output, answer_shape, check_outputs
from modeltree.preprocessing import PictureRule, Preprocessing, check_channels
from modeltree.reward import Reward
from modeltree.tree.nodes import BitsFork, ExitFork, Node, by_confidence

TREE_VERSION = 5
"""The newest. Older ones are read too, and written where they can say it all: 1 has no image codes, 2 no round trips of
bandwidth types, times of coding, what hand-overs take beside, nor outputs, 3 no number formats, 4 no latency of its own
that is worth nothing."""

_MAX_LATENCY_MS = Reward().max_latency_ms


class ModelTree(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A searched tree. Nodes are in breadth-first order, `nodes[i].id == i`; `roots` are those of the first level.

    mean, std : per channel, of pixels scaled to 0..1; every network of the tree takes (pixel / 255 - mean) / std.
    picture : how a picture becomes pixels; see `preprocessing`.
    places : of the base network where it is sliced into blocks, first and last included.
    rtt_ms, device, cloud, trace : what the tree was searched for.
    extra_ms, message_bytes : what a hand-over was met to take beside the round trip and its bytes, and how many of the
        bytes of every hand-over are its message's; not written where they are 0.
    exits : places of the early exits, rising; exit 1 is the first of them. Not written where there is none.
    outputs : what the network answers where that is not one vector of classes, of which there are none then; the blocks
        of a path end with `answer_shape(outputs)`. Not written where there are none.
    quality : what the leaves' `accuracy` is a percentage of, where that is not right classes; else not written.
    max_latency_ms : where latency is worth nothing by the reward that the tree was searched for; 500 is not written.
    """

    base: str
    input_shape: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: tuple[str, ...]
    places: tuple[int, ...]
    types: BandwidthTypes
    rtt_ms: float
    device: str
    cloud: str
    trace: str
    nodes: tuple[Node, ...]
    format: str = msgspec.field(default_factory=lambda: "nas-modeltree")  # a factory's default is always written
    version: int = msgspec.field(default_factory=lambda: 1)
    extra_ms: float = 0.0
    message_bytes: int = 0
    exits: tuple[int, ...] = ()
    picture: PictureRule = msgspec.field(default_factory=PictureRule)  # trees of before have none: it is their rule
    outputs: tuple[Output, ...] = ()
    quality: str = ""
    max_latency_ms: float = _MAX_LATENCY_MS

    @property
    def reward(self) -> Reward:
        """What a leaf's accuracy and latency are worth [Wang 2020, eq. 7]."""
        return Reward(max_latency_ms=self.max_latency_ms)

    @property
    def answer_shape(self) -> tuple[int, ...]:
        """Of what every path ends with, per image: logits, or the outputs as one tensor."""
        return answer_shape(self.outputs) if self.outputs else (len(self.classes),)

    @property
    def preprocessing(self) -> Preprocessing:
        """All that is done to a picture before a network of the tree sees it.

        Raises
        ------
        DataError : the tree's networks take no pictures.
        """
        if len(self.input_shape) != 3:
            raise DataError(
                f"the network takes {list(self.input_shape)}: only one that takes [channels, height, width] can be "
                "shown pictures"
            )
        height, width = self.input_shape[1:]
        return Preprocessing(height=height, width=width, mean=self.mean, std=self.std, rule=self.picture)

    @property
    def roots(self) -> tuple[int, ...]:
        """Ids of the first level's nodes."""
        return tuple(node.id for node in self.nodes if node.parent is None)

    def child(self, node: int | None, bandwidth_type: int) -> Node:
        """The node that follows `node` (None: at the start) when the bandwidth is of that type."""
        for option in self.after(node):
            if bandwidth_type in option.fork.types:
                return option
        raise FormatError(f"node {node} has no fork for bandwidth type {bandwidth_type}: the tree is not complete")

    def after(self, node: int | None) -> tuple[Node, ...]:
        """The forks below a node; None: those of the first level."""
        return tuple(self.nodes[i] for i in (self.roots if node is None else self.nodes[node].children))

    def confident(self, node: int) -> Node | None:
        """The exit below a node through which a sample leaves that is sure enough; None where there is none."""
        return next((option for option in self.after(node) if by_confidence(option)), None)

    def chances(self) -> tuple[float, ...]:
        """Of every node: the sum over the leaves below it, its own included."""
        found = [0.0 if node.leaf is None else node.leaf.chance for node in self.nodes]
        for node in reversed(self.nodes):
            if node.parent is not None:
                found[node.parent] += found[node.id]
        return tuple(found)

    def walk(self, measure_mbps: Callable[[], float]) -> Iterator[Node]:
        """Compose a network fork by fork [Wang 2020, alg. 2]: measure, match, go on, until a leaf.

        The bandwidth is measured once per fork, when the next node is asked for. Nobody leaves by confidence.
        """
        here: int | None = None
        while True:
            node = self.child(here, self.types.match(measure_mbps()))
            yield node
            if node.leaf is not None:
                return
            here = node.id

    def path(self, node: int) -> tuple[Node, ...]:
        """Nodes from the first level to `node`."""
        found: list[Node] = []
        at: int | None = node
        while at is not None:
            found.append(self.nodes[at])
            at = self.nodes[at].parent
        return tuple(reversed(found))

    def leaves(self) -> tuple[Node, ...]:
        """Nodes where a path ends."""
        return tuple(node for node in self.nodes if node.leaf is not None)

    def __post_init__(self) -> None:
        if self.format != "nas-modeltree" or not 1 <= self.version <= TREE_VERSION:
            raise FormatError(
                f"this is {self.format!r} version {self.version}, we read 'nas-modeltree' version 1 to {TREE_VERSION}: "
                "search again, or use the version of nas that wrote it"
            )
        if not (math.isfinite(self.max_latency_ms) and self.max_latency_ms > 0):
            raise FormatError(f"max_latency_ms is {self.max_latency_ms}: it must be finite and above 0")
        extra = max(self.extra_ms, self.message_bytes, len(self.outputs))
        if self.version < (least := version_of(self.nodes, self.types, extra, self.max_latency_ms)):
            what = {
                2: "hands an image over in a code", 4: "has blocks in other number formats than f32",
                5: "says at which latency it is worth nothing",
            }.get(least, "has outputs, round trips of types, times of coding or of crossing")  # fmt: skip
            raise FormatError(f"a tree of version {self.version} {what}: that begins with version {least}, say so")
        check_outputs(self.outputs)
        if self.outputs and (self.classes or self.exits):
            raise FormatError("the tree has outputs, and classes or exits: those are of a network that classifies")
        channels = self.input_shape[0] if self.input_shape else 0
        check_channels(self.mean, self.std, channels)
        if len(self.input_shape) == 3 and self.picture.count != channels:
            raise FormatError(
                f"pictures become {self.picture.channels}, which is {self.picture.count} channels: the network takes "
                f"{list(self.input_shape)}, they must be as many"
            )
        bounds = (0, *self.exits, max(self.places, default=0))
        if self.exits and any(low >= high for low, high in itertools.pairwise(bounds)):
            raise FormatError(
                f"the exits are at places {list(self.exits)}: they must rise, within 1..{bounds[-1] - 1} of the network"
            )
        for position, node in enumerate(self.nodes):
            self._check(position, node)
            self._check_fork(node)
        for parent in (None, *(node.id for node in self.nodes if node.children)):
            for kind in range(self.types.count):
                self.child(parent, kind)
        if any(node.leaf.chance < 0 for node in self.nodes if node.leaf is not None):
            raise FormatError("a leaf has a negative chance: chances must be at least 0")
        total = sum(node.leaf.chance for node in self.nodes if node.leaf is not None)
        if not math.isclose(total, 1.0, abs_tol=1e-6):
            raise FormatError(f"the chances of all leaves add up to {total:g}: they must add up to 1")

    def _check(self, position: int, node: Node) -> None:
        if node.id != position:
            raise FormatError(f"node {position} has id {node.id}: nodes must be numbered in order")
        if not 0 <= node.partition <= node.segments:
            raise FormatError(f"node {node.id} is cut at {node.partition}: it must be within 0..{node.segments}")
        if (node.leaf is None) != bool(node.children):
            raise FormatError(f"node {node.id} must either be a leaf or have children")
        if node.handover is not None and node.leaf is None:
            raise FormatError(f"node {node.id} hands over and goes on: a hand-over must end its path")
        for child in node.children:
            if not position < child < len(self.nodes) or self.nodes[child].parent != node.id:
                raise FormatError(f"node {node.id} lists {child} as its child, which is not: mend the tree")
        if node.parent is not None and (
            not 0 <= node.parent < position or node.id not in self.nodes[node.parent].children
        ):
            raise FormatError(f"node {node.id} names {node.parent} as its parent, which is not: mend the tree")
        if node.level != (0 if node.parent is None else self.nodes[node.parent].level + 1):
            raise FormatError(f"node {node.id} is at level {node.level}: it must be one below its parent")

    def _check_fork(self, node: Node) -> None:
        fork = node.fork
        if node.handover is not None and not 0 <= node.handover.exit <= len(self.exits):
            raise FormatError(
                f"node {node.id} hands over to exit {node.handover.exit}: the tree has {len(self.exits)}, 0 is its end"
            )
        if isinstance(fork, BitsFork):
            if node.handover is None or node.handover.bits != fork.bits:
                hands = "hands nothing over" if node.handover is None else f"hands over {node.handover.bits} bits"
                raise FormatError(f"node {node.id} {hands} on a fork of {fork.bits} bits: it must hand over as many")
        elif isinstance(fork, ExitFork):
            if not 1 <= fork.exit <= len(self.exits):
                raise FormatError(f"node {node.id} leaves through exit {fork.exit}: the tree has {len(self.exits)}")
            if node.leaf is None or node.handover is not None:
                raise FormatError(f"node {node.id} leaves through exit {fork.exit}: it must end on the device")
        if by_confidence(node):
            siblings = () if node.parent is None else self.nodes[node.parent].children
            if sum(by_confidence(self.nodes[sibling]) for sibling in siblings) != 1:
                raise FormatError(f"node {node.id} is an exit by confidence: it must be the only one below some node")
        elif not fork.types and node.leaf is not None and node.leaf.chance:
            raise FormatError(f"only a policy takes node {node.id}, whose chance is {node.leaf.chance:g}: it must be 0")


def version_of(
    nodes: Iterable[Node], types: BandwidthTypes, extra: float = 0.0, max_latency_ms: float = _MAX_LATENCY_MS
) -> int:
    """The oldest version of the format that can say what these nodes do for these types.

    extra : what crossing was met to take beside, or how many outputs there are; 0 for nothing.
    """
    if max_latency_ms != _MAX_LATENCY_MS:
        return 5
    nodes = tuple(nodes)
    if any(node.number_format != "f32" for node in nodes):
        return 4
    handovers = [node.handover for node in nodes if node.handover is not None]
    if types.rtt_ms or extra or any(handover.encode_ms for handover in handovers):
        return 3
    return 2 if any(handover.code for handover in handovers) else 1


def encode_tree(tree: ModelTree) -> bytes:
    """The tree as JSON, two spaces deep; the same tree always gives the same bytes."""
    return msgspec.json.format(msgspec.json.encode(tree), indent=2) + b"\n"


def decode_tree(data: bytes, origin: str) -> ModelTree:
    """Read a tree from JSON; `origin` (a file name) goes into the error.

    Raises
    ------
    FormatError : not JSON, not a tree, of another version, or inconsistent.
    """
    try:
        return msgspec.json.decode(data, type=ModelTree)
    except (msgspec.MsgspecError, FormatError, ConfigError, UnicodeDecodeError) as error:
        raise FormatError(f"{origin} is not a model tree: {error}") from error
