"""T6: a residual block left out; beyond the paper.

What the block adds to its own input is not added. Nothing is left of it: neither time nor weights.
"""

from torch import nn

from modeltree.errors import NotApplicable
from transforms.graph.bodies import RESIDUAL, Body
from transforms.graph.network import Unit
from transforms.techniques.technique import Samples, Technique, Variant


class Skipping(Technique):
    """Residual block -> its input. The rate means nothing."""

    id, name, rates = "T6", "skip", (1.0,)

    def reach(self, unit: Unit) -> Body | None:
        return next((body for body in unit.bodies if body.kind == RESIDUAL), None)

    def structure(self, unit: Unit, rate: float) -> Variant:
        body = self.reach(unit)
        if body is None:
            raise NotApplicable(
                f"{self.name} leaves out what is added to its own input: {unit.name} begins no such block"
            )
        return Variant(unit, nn.Identity(), body=body)

    def initialise_(self, variant: Variant, unit: Unit, rate: float, samples: Samples | None) -> None:
        """Nothing to set."""
