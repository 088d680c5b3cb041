"""What the tree does in every state of the link, and what each other choice takes there."""

from collections.abc import Mapping
from typing import Any

from modeltree.tree import ModelTree, Node
from modeltree.tree.render import path_text, range_text
from nas.treesearch.space import Scenario


def link_states(tree: ModelTree, others: Mapping[str, ModelTree], scenario: Scenario) -> list[dict[str, Any]]:
    """One row a bandwidth type, the slowest first; latencies are predicted, for a link that stays as it is.

    others : by name, trees of the same scenario. Nobody leaves by confidence.
    """
    types = tree.types
    return [
        {
            "range": range_text(tree, (kind,)),
            "mbps": types.representative_mbps[kind],
            "rtt_ms": types.rtt_ms[kind] if types.rtt_ms else tree.rtt_ms,
            "chance": types.initial[kind],
            "leaf": _end(tree, kind).id,
            "path": path_text(tree.path(_end(tree, kind).id)),
            "latency_ms": {name: latency_ms(one, scenario, kind) for name, one in others.items()},
        }
        for kind in range(types.count)
    ]


def latency_ms(tree: ModelTree, scenario: Scenario, kind: int) -> float:
    """What an inference takes while the link is of one type."""
    end = _end(tree, kind)
    own_ms = sum(node.device_ms for node in tree.path(end.id))
    if end.handover is None:
        return own_ms
    crossing = end.handover.bytes - scenario.message_bytes  # which the tree has counted already
    return own_ms + float(scenario.transfer_ms(crossing)[kind]) + end.cloud_ms


def _end(tree: ModelTree, kind: int) -> Node:
    node = tree.child(None, kind)
    while node.leaf is None:
        node = tree.child(node.id, kind)
    return node
