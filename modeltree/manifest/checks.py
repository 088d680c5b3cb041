"""What the parts of a manifest must be to each other. All raise FormatError, which says what contradicts what."""

import itertools
from collections.abc import Iterator, Mapping

from modeltree.errors import FormatError
from modeltree.manifest.entries import BlockEntry, FileEntry, TargetEntry
from modeltree.manifest.tree_parts import roles_of
from modeltree.tree import ModelTree, Node


def all_files(targets: Mapping[str, TargetEntry], blocks: Mapping[str, BlockEntry]) -> Iterator[FileEntry]:
    """Every file that is named, as often as it is named."""
    yield from (target.runtime for target in targets.values() if target.runtime is not None)
    for block in blocks.values():
        yield from block.libraries
        if block.onnx is not None:
            yield block.onnx


def check_blocks(tree: ModelTree, blocks: Mapping[str, BlockEntry]) -> None:
    """The blocks are those that the tree names, each in its roles."""
    wanted = roles_of(tree)
    if missing := sorted(set(wanted) - set(blocks)):
        raise FormatError(f"block {missing[0]} of the tree is not among the blocks: compile it again")
    if spare := sorted(set(blocks) - set(wanted)):
        raise FormatError(f"block {spare[0]} is not named by the tree: every block must be")
    for name, block in blocks.items():
        if block.roles != wanted[name]:
            raise FormatError(f"block {name} has roles {list(block.roles)}: in the tree they are {list(wanted[name])}")


def check_shapes(tree: ModelTree, blocks: Mapping[str, BlockEntry], path: tuple[Node, ...]) -> None:
    """Along a path every block takes what the one before it gives, and the last gives the answer."""
    end = path[-1]
    names = [node.block for node in path if node.block]
    tensor = tree.input_shape
    if end.handover is not None:
        names.append(end.handover.block)
    for name in names:
        block = blocks[name]
        if end.handover is not None and name is names[-1] and end.handover.shape != tensor:
            raise FormatError(
                f"node {end.id} hands over {list(end.handover.shape)}: {list(tensor)} is what arrives there"
            )
        if block.in_shape != tensor:
            raise FormatError(
                f"block {name} takes {list(block.in_shape)}: on the way to leaf {end.id} it gets {list(tensor)}"
            )
        tensor = block.out_shape
    if tensor != tree.answer_shape:
        wanted = "one tensor of all outputs" if tree.outputs else f"{len(tree.classes)} logits"
        raise FormatError(
            f"the path to leaf {end.id} ends with {list(tensor)}: it must be {wanted}, {list(tree.answer_shape)}"
        )


def check_target(blocks: Mapping[str, BlockEntry], name: str, target: TargetEntry) -> None:
    """A target has one library for every block of its roles, kind of weights and batch size."""
    if target.record.get("name") != name:
        raise FormatError(f"the record of target {name} names {target.record.get('name')!r}: it must name {name!r}")
    if "rest" not in target.roles or len(set(target.roles)) != len(target.roles):
        raise FormatError(f"target {name} has roles {list(target.roles)}: they must be device and rest, or rest")
    if target.runtime is not None and not target.runtime.file.startswith(f"lib/{name}/"):
        raise FormatError(f"{target.runtime.file} is the runtime of target {name}: it must lie in lib/{name}/")
    wanted = sorted(itertools.product(target.variants, target.batches))
    if not wanted:
        raise FormatError(f"target {name} has no variants or no batches: it must have one of each")
    for block_hash, block in blocks.items():
        due = wanted if set(block.roles) & set(target.roles) else []
        there = sorted((library.variant, library.batch) for library in block.libraries if library.target == name)
        if there != due:
            raise FormatError(f"block {block_hash} has libraries {there} for target {name}: they must be {due}")


def check_files(targets: Mapping[str, TargetEntry], blocks: Mapping[str, BlockEntry]) -> None:
    """Every file lies where it belongs, and has one content."""
    for name, block in blocks.items():
        for library in block.libraries:
            if library.target not in targets:
                known = ", ".join(sorted(targets)) or "none"
                raise FormatError(f"{library.file} of block {name} is for target {library.target!r}: known are {known}")
            if not library.file.startswith(f"lib/{library.target}/"):
                raise FormatError(
                    f"{library.file} is for target {library.target}: it must lie in lib/{library.target}/"
                )
        if block.onnx is not None and not block.onnx.file.startswith("onnx/"):
            raise FormatError(f"{block.onnx.file} is the ONNX form of block {name}: it must lie in onnx/")
    content: dict[str, tuple[str, int]] = {}
    for entry in all_files(targets, blocks):
        here = (entry.sha256, entry.bytes)
        if content.setdefault(entry.file, here) != here:
            raise FormatError(f"{entry.file} is named with two contents: one file must have one sha256 and one size")
