"""What a network answered, in a few words."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modeltree.tree import ModelTree
    from runtime.result import Result


def shown(tree: "ModelTree", result: "Result") -> str:
    """The class, or each output's shape and mean."""
    if not tree.outputs:
        return tree.classes[int(result.output.argmax())]
    return ", ".join(
        f"{name} {'x'.join(map(str, one['shape']))} (mean {one['mean']:.4g})" for name, one in summed(result).items()
    )


def summed(result: "Result") -> dict[str, dict[str, Any]]:
    """Shape, mean and extremes of every output."""
    return {
        name: {"shape": list(one.shape), "mean": float(one.mean()), "min": float(one.min()), "max": float(one.max())}
        for name, one in result.outputs.items()
    }
