"""What a tree asks of a bundle: its paths, and the blocks they name."""

from modeltree.errors import FormatError
from modeltree.manifest.entries import PathEntry, Role
from modeltree.tree import ExitFork, ModelTree


def paths_of(tree: ModelTree) -> tuple[PathEntry, ...]:
    """One entry per leaf, in the order of the tree."""
    found = []
    for end in tree.leaves():
        assert end.leaf is not None
        nodes = tree.path(end.id)
        found.append(
            PathEntry(
                leaf=end.id, nodes=tuple(node.id for node in nodes),
                blocks=tuple(node.block for node in nodes if node.block),
                handover_place=end.handover.place if end.handover else None,
                rest=end.handover.block if end.handover else None,
                latency_ms=end.leaf.latency_ms, accuracy=end.leaf.accuracy,
                accuracy_origin=end.leaf.accuracy_origin, chance=end.leaf.chance,
            )
        )  # fmt: skip
    return tuple(found)


def number_formats_of(tree: ModelTree) -> dict[str, str]:
    """The format that the tree computes each block in, by hash; f32 for rests.

    Raises
    ------
    FormatError : two nodes ask for one block in two formats.
    """
    found = dict.fromkeys(roles_of(tree), "f32")
    asked: dict[str, str] = {}
    for node in tree.nodes:
        if node.block and asked.setdefault(node.block, node.number_format) != node.number_format:
            raise FormatError(
                f"block {node.block} is asked for in {asked[node.block]} and in {node.number_format}: a block has one "
                "number format, give the other one another name"
            )
    return found | asked


def roles_of(tree: ModelTree) -> dict[str, tuple[Role, ...]]:
    """Every block and rest that the tree names, by hash, with its roles; sorted by hash.

    Raises
    ------
    FormatError : a node that runs on the device, or a hand-over, names no block: the tree was not exported.
    """
    device: set[str] = set()
    rest: set[str] = set()
    for node in tree.nodes:
        runs = node.partition > 0 or isinstance(node.fork, ExitFork)
        if bool(node.block) != runs:
            state = "names no block" if runs else f"names block {node.block} but runs nothing"
            raise FormatError(f"node {node.id} {state}: a node must name a block exactly when it runs on the device")
        device |= {node.block} - {""}
        if node.handover is not None:
            if not node.handover.block:
                raise FormatError(
                    f"node {node.id} hands over to no block: a hand-over must name the rest of the network"
                )
            rest.add(node.handover.block)
    sides: tuple[tuple[Role, set[str]], ...] = (("device", device), ("rest", rest))
    return {name: tuple(role for role, names in sides if name in names) for name in sorted(device | rest)}
