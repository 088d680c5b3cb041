"""Names a user can choose, known without importing what they stand for (so that `nas --help` is quick)."""

FIXED = ("device_only", "cloud_raw", "cloud_jpeg")
"""Baselines that decide nothing."""
METHODS = ("surgery", "branch", "tree", "random", "egreedy")
TECHNIQUE_NAMES = ("svd", "ksvd", "gap", "mobilenet", "mobilenet_v2", "fire", "prune", "tucker2")
EXECUTORS = ("serial", "processes")
