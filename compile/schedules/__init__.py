"""Rules that make kernels of stages. Each takes a stage and answers with a kernel, or with None: not mine."""

from typing import Any

from compile.graph.kernels import Kernel
from compile.graph.layouts import Largest, Layout, Placement, Quantise, Relayout
from compile.graph.stages import Concat, Convolution, Elementwise, Gather, Loops, Map, Pool, Product, Rows, Stage
from compile.schedules.concatenation import concatenation
from compile.schedules.convolution import convolution
from compile.schedules.depthwise import depthwise
from compile.schedules.elementwise import elementwise
from compile.schedules.pooling import pooling
from compile.schedules.quantise import largest, quantise
from compile.schedules.relayout import relayout
from compile.schedules.row_major.gathering import gathering
from compile.schedules.row_major.loops import loops
from compile.schedules.row_major.product import product
from compile.schedules.row_major.rows import rows, steps_on_rows
from compile.targets import Target
from modeltree.errors import GraphError

RULES: dict[type, tuple[Any, ...]] = {
    Convolution: (depthwise, convolution),
    Pool: (pooling,),
    Elementwise: (elementwise,),
    Concat: (concatenation,),
    Relayout: (relayout,),
    Largest: (largest,),
    Quantise: (quantise,),
    Gather: (gathering,),
    Product: (product,),
    Map: (steps_on_rows,),
    Rows: (rows,),
    Loops: (loops,),
}
"""For every kind of stage, the rules to ask, the most special first."""


def scheduled(stage: Stage | Placement, layouts: dict[str, Layout], target: Target, weights: str) -> Kernel:
    """The kernel of the first rule that takes the stage.

    Raises
    ------
    GraphError : none does.
    """
    for rule in RULES[type(stage)]:
        kernel: Kernel | None = rule(stage, layouts, target, weights)
        if kernel is not None:
            return kernel
    raise GraphError(f"no schedule takes {stage.out.name}, a {type(stage).__name__} of shape {stage.out.shape}")
