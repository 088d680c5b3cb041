"""A run to write bundles of."""

import json

import pytest
from bundles import SHAPES, tree

from modeltree.tree import encode_tree


@pytest.fixture
def run(tmp_path):
    """A run directory with the tree made by hand."""
    folder = tmp_path / "run"
    (folder / "blocks").mkdir(parents=True)
    (folder / "tree.json").write_bytes(encode_tree(tree()))
    for block in SHAPES:
        (folder / "blocks" / f"{block}.pt2").write_bytes(b"program " + block.encode())
    told = {"commit": "1b676fb", "versions": {"torch": "2.13.0"}, "machine": "x", "date": "2026-11-21"}
    (folder / "summary.json").write_text(
        json.dumps({"version": 1, "config": {"base": "vgg11"}, "exact": {"found": float("nan")}, "provenance": told})
    )
    return folder
