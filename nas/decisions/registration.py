"""Our environments in Gymnasium's registry, by name, without importing them."""

from typing import Any

ENVIRONMENTS = {
    "nas/Placement-v0": (
        "nas.decisions.placement.environment:PlacementEnv",
        "nas.decisions.placement.environment:PlacementVectorEnv",
    ),
}
"""Where each lives: one at a time, and vectorised."""


def register(gymnasium: Any) -> None:
    """Make them known, once."""
    for name, (single, vector) in ENVIRONMENTS.items():
        if name not in gymnasium.registry:
            gymnasium.register(name, entry_point=single, vector_entry_point=vector)
