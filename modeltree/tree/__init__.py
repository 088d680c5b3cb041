"""The model tree: what a search finds, a compiler compiles and a device walks. No torch.

`render` is a tree for people, `emulate` plays it over a link.
"""

from modeltree.tree.model_tree import TREE_VERSION, ModelTree, decode_tree, encode_tree, version_of
from modeltree.tree.nodes import (
    Action,
    BandwidthFork,
    BitsFork,
    BlockName,
    ExitFork,
    Fork,
    FormatName,
    Handover,
    Leaf,
    Node,
    by_confidence,
)  # fmt: skip

__all__ = [
    "TREE_VERSION", "Action", "BandwidthFork", "BitsFork", "BlockName", "ExitFork", "Fork", "FormatName", "Handover",
    "Leaf", "ModelTree", "Node", "by_confidence", "decode_tree", "encode_tree", "version_of",
]  # fmt: skip
