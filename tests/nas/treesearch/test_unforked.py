"""The best single path against every path there is."""

import pytest
from networks import made_library, made_predictor, scenario, tiny

from nas.treesearch.evaluator import Evaluator
from nas.treesearch.exact import enumerate_plans
from nas.treesearch.methods import run_exact, run_unforked
from nas.treesearch.search_spaces import build_search_spaces


def spaces(mbps):
    library = made_library()
    return build_search_spaces(
        tiny(), library, made_predictor(library), scenario(mbps=mbps, device="pi3_ncnn_1t"), (0, 2, 5),
        single_root=False, max_loss=100.0,
    )  # fmt: skip


@pytest.mark.parametrize("mbps", [(0.05, 200.0), (5.0, 6.0)])
def test_no_path_that_serves_all_states_is_worth_more(mbps):
    found = spaces(mbps)
    whole = found.unforked.problem
    every = [Evaluator(whole).tree([plan]).outcome.reward for plan in enumerate_plans(whole.blocks[0])]
    single = run_unforked(found)
    assert single.valued == pytest.approx(max(every))
    assert single.valued <= run_exact(found)["valued"] + 1e-9


def test_it_is_one_way_in_every_state():
    found = spaces((0.05, 200.0))
    shape, plans = found.tree.problem.shape, run_unforked(found).plans
    for level in range(len(found.tree.problem.blocks)):
        assert len({plan for plan, at in zip(plans, shape.level, strict=True) if at == level and plan is not None}) <= 1
