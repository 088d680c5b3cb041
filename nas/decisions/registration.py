"""Our environments in Gymnasium's registry, by name, without importing them.

Gymnasium calls `register_environments` when it is imported, by the entry point in pyproject.toml; `import nas` does so
where Gymnasium was imported first. Nothing here imports torch, nor Gymnasium by itself.
"""

ENVIRONMENTS = {
    "nas/Placement-v0": (
        "nas.decisions.placement.environment:PlacementEnv",
        "nas.decisions.placement.environment:PlacementVectorEnv",
    ),
    "nas/TaskStream-v0": (
        "nas.decisions.streams.environment:TaskStreamEnv",
        "nas.decisions.streams.vector:TaskStreamVectorEnv",
    ),
}
"""Where each lives: one at a time, and vectorised."""


def register_environments() -> None:
    """Make them known, once."""
    import gymnasium

    for name, (single, vector) in ENVIRONMENTS.items():
        if name not in gymnasium.registry:
            gymnasium.register(name, entry_point=single, vector_entry_point=vector)
