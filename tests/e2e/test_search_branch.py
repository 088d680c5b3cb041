"""A search that trains every composed network whole, as the paper does (`--distillation branch`)."""

import json

import msgspec
import pytest
import tiny_search
import torch

from nas.search import search


def test_what_the_search_goes_by_is_what_whole_networks_were_measured_to_be(tmp_path):
    threads = torch.get_num_threads()
    config = msgspec.structs.replace(
        tiny_search.config(tiny_search.given(tmp_path)), distillation="branch", branch_steps=2, budget=10,
        finetune_steps=0, techniques=("prune",), methods=("branch", "tree", "random"),
    )  # fmt: skip
    found = search(config, tmp_path / "run", cache=tmp_path / "cache")
    torch.set_num_threads(threads)
    stages = tmp_path / "run" / "stages"
    known = json.loads((stages / "branches.json").read_text())
    measured = json.loads((stages / "measured.json").read_text())
    assert known["[]"] == pytest.approx(measured["base_search"])  # nothing replaced is the base network
    assert len(known) > 1
    assert all(0 <= accuracy <= 100 for accuracy in known.values())
    tree = json.loads((stages / "tree.json").read_text())
    assert min(known.values()) - 1e-9 <= tree["accuracy"] <= max(known.values()) + 1e-9
    assert found.summary["exact"] is None  # there is no predictor to be exact about
    assert "random" not in {row["method"] for row in found.summary["methods"]}
