"""Names a user can choose, known without importing what they stand for (so that `nas --help` is quick)."""

FIXED = ("device_only", "cloud_raw", "cloud_jpeg")
"""Baselines that decide nothing."""
ACTIONS = "actions"
"""The base network's exits, cuts and bits as a tree; there where a search has exits or codes."""
PLAIN_TREE = "plain_tree"
"""The model tree without exits and codes, searched beside that with them."""
METHODS = ("surgery", "branch", "tree", "random", "egreedy")
TECHNIQUE_NAMES = ("svd", "ksvd", "gap", "mobilenet", "mobilenet_v2", "fire", "prune", "tucker2")
EXECUTORS = ("serial", "processes")
