"""Whether an exported network is one that can be deployed: asked before anything is trained or searched.

What is deployed answers one image at a time, always alike, and is compiled. A network that does not must be told at
once and by the name of its layer, not after a whole search.
"""

import importlib.util
import warnings
from typing import Any

import torch
from torch import fx

from modeltree.errors import GraphError, Remark

aten = torch.ops.aten
_IMAGES = 3
_TOLERANCE = 1e-3  # of the largest number: more than rounding in another order gives


def check_program(program: torch.export.ExportedProgram) -> None:
    """Refuse a network that cannot be deployed. A softmax at its end is pointed out (a `Remark`).

    It is run on a few images of noise, together and each alone, and read by the compiler where that is installed.

    Raises
    ------
    GraphError : it draws random numbers, answers with what is not finite, or differently twice, mixes the images of a
        batch, cannot be run on one image, or has an operator that the compiler does not take.
    """
    if drawing := _drawing(program.graph):
        raise GraphError(
            f"layer {layer_of(drawing)}: {_name(drawing)} draws random numbers, so that the network answers "
            "differently each time: leave it out in eval mode (pass training=self.training)"
        )
    images = torch.randn(_IMAGES, *_image_shape(program), generator=torch.Generator().manual_seed(0))
    together, again = _run(program, images), _run(program, images)
    if not bool(torch.isfinite(together).all()):
        raise GraphError(
            "the network answers pictures of noise with numbers that are not finite: look for a division by zero, a "
            "logarithm or a root in it"
        )
    if not torch.equal(together, again):
        raise GraphError("the network answers the same images differently the second time: keep no state between calls")
    alone = _run(program, images[:1])
    if alone.shape != together[:1].shape or not _alike(alone, together[:1]):
        mixing = next(filter(_mixes, program.graph.nodes), None)
        where = f"layer {layer_of(mixing)}: {_name(mixing)}" if mixing else "the network"
        raise GraphError(
            f"{where} answers an image differently beside others, where a device runs one at a time: "
            "normalise by running statistics (track_running_stats=True), every image on its own"
        )
    if importlib.util.find_spec("tvm"):
        from compile.acceptance import check_accepted

        check_accepted(program)
    if ends_in_softmax(program):
        warnings.warn(
            "the network ends in a softmax: training, distillation and exits take logits: leave it out, the answers "
            "are the same",
            Remark,
            stacklevel=2,
        )


def layer_of(node: fx.Node) -> str:
    """The user's layer that a call belongs to: its module path, or the call's own name where there is none."""
    paths = [path for path, _ in (node.meta.get("nn_module_stack") or {}).values() if path]
    return str(paths[-1]) if paths else node.name


def ends_in_softmax(program: torch.export.ExportedProgram) -> bool:
    """Whether the last thing a network does is to turn logits into shares."""
    (output,) = (node for node in program.graph.nodes if node.op == "output")
    last = output.args[0][-1]
    return isinstance(last, fx.Node) and last.target in (aten.softmax.int, aten._softmax.default)


def _drawing(graph: fx.Graph) -> fx.Node | None:
    """The first call that draws random numbers, dropout at inference aside."""
    for node in graph.nodes:
        tags = getattr(node.target, "tags", ())
        if torch.Tag.nondeterministic_seeded in tags and not _rests(node):
            return node
    return None


def _rests(node: fx.Node) -> bool:
    """Whether a call that could draw is told not to: dropout that does not train, attention without it."""
    operator: Any = node.target
    names = [argument.name for argument in operator._schema.arguments]
    given: dict[str, Any] = dict(zip(names, node.args)) | node.kwargs
    if "train" in given:
        return not given["train"] or given.get("p") == 0
    return "dropout_p" in names and not given.get("dropout_p")


def _mixes(node: fx.Node) -> bool:
    """Whether a call normalises by the statistics of its batch."""
    if node.target is not aten.batch_norm.default:
        return False
    return bool(node.args[5]) or node.args[3] is None


def _name(node: fx.Node) -> str:
    return str(node.target).removeprefix("aten.").removesuffix(".default")


def _image_shape(program: torch.export.ExportedProgram) -> tuple[int, ...]:
    """(channels, height, width) of the one input."""
    entering = [node for node in program.graph.nodes if node.name in program.graph_signature.user_inputs]
    if len(entering) != 1:
        raise GraphError(f"the network has {len(entering)} inputs: it must have exactly one")
    return tuple(int(side) for side in entering[0].meta["val"].shape[1:])


def _run(program: torch.export.ExportedProgram, images: torch.Tensor) -> torch.Tensor:
    try:
        with torch.no_grad():
            answer = program.module()(images.clone())
    except Exception as error:  # torch raises many unrelated types
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise GraphError(
            f"the network cannot be run on {len(images)} images: {reason}: write it for any batch size, one included"
        ) from error
    if not isinstance(answer, torch.Tensor):
        raise GraphError(f"the network returns a {type(answer).__name__}: it must return one tensor (batch, classes)")
    return answer


def _alike(one: torch.Tensor, two: torch.Tensor) -> bool:
    return bool((one - two).abs().max() <= _TOLERANCE * two.abs().max() + 1e-6) or not bool(torch.isfinite(two).all())
