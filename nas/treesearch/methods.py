"""Every way to choose a tree, run on the same space: the searches and the baselines beside them."""

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from modeltree.errors import ConfigError
from modeltree.image_codes import BASELINE
from nas.config import SearchConfig
from nas.jobs.progress import Progress
from nas.names import OPTIMUM, UNFORKED
from nas.treesearch.evaluator import Evaluator, PathOutcome, PlanPath
from nas.treesearch.exact import solve
from nas.treesearch.problem import KEEP, Outcome, Plan, Problem, TreePlan
from nas.treesearch.reinforce import BestTree, Reinforce, ReinforceConfig, Step
from nas.treesearch.search_spaces import SearchSpaces, priced
from nas.treesearch.space import Space, branch_as_tree
from nas.treesearch.surgery import legal_place, surgery
from nas.treesearch.tabular import egreedy_search, random_search

_RAISES, _DEARER = 10, 1.5
_BRANCH_SHARE = 0.4  # of the episodes, when the tree search starts from branches

Oracle = Callable[[Space, PlanPath], float]
"""Accuracy of a branch in percent, where the predictor is not to be asked."""


class MethodResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a method chose for every node, and what that is predicted to be worth.

    valued : the reward as the search values it, with the guard on accuracy.
    plans : per node [partition, [options]], None below a hand-over.
    curve : (episodes, evaluations, best, mean, baseline, entropy) as the search went on.
    """

    method: str
    plans: tuple[Plan | None, ...]
    valued: float
    reward: float
    latency_ms: float
    accuracy: float
    energy_mj: float
    evaluations: int
    seconds: float
    curve: tuple[Step, ...] = ()


def fixed(spaces: SearchSpaces, method: str) -> MethodResult:
    """`device_only`, `cloud_raw` or `cloud_jpeg`: the whole network here, or the image to the cloud.

    Raises
    ------
    ConfigError : the network takes no pictures that could be sent as a JPEG.
    """
    whole = spaces.branches[0].problem
    plan = _kept(whole, whole.blocks[0].places if method == "device_only" else 0)
    if method == "cloud_jpeg":
        codes = [ending.picture for ending in whole.blocks[0].endings[0]]
        if BASELINE not in codes:
            raise ConfigError("cloud_jpeg sends a JPEG: the network takes no pictures")
        plan = plan._replace(ending=codes.index(BASELINE))
    return _result(spaces, method, branch_as_tree(spaces.tree.problem, whole, [plan] * len(spaces.branches)), 0, 0.0)


def run_surgery(spaces: SearchSpaces) -> MethodResult:
    """Dynamic DNN surgery: for every bandwidth type the minimum cut, chosen when an inference begins."""
    began = time.perf_counter()
    plans = [_surgery_plan(spaces, k) for k in range(len(spaces.branches))]
    tree = branch_as_tree(spaces.tree.problem, spaces.branches[0].problem, plans)
    return _result(spaces, "surgery", tree, len(plans), time.perf_counter() - began)


def run_branch(
    spaces: SearchSpaces, config: SearchConfig, progress: Progress, oracle: Oracle | None = None
) -> MethodResult:
    """Optimal branch [Wang 2020, alg. 1] for every bandwidth type, chosen when an inference begins.

    The search knows surgery's cut from the start, so that it never ends below it.
    """
    began = time.perf_counter()
    episodes = max(1, round(_BRANCH_SHARE * config.budget / len(spaces.branches)))
    plans, evaluations, curve = [], 0, []
    for k, space in enumerate(spaces.branches):
        evaluator = _evaluator(space, config, oracle)
        search = Reinforce(
            space.problem, evaluator, _settings(config, episodes), seed=config.seed + k,
            boosted=[_surgery_plan(spaces, k)],
        )  # fmt: skip
        result = _ran(search, progress, f"branch {k + 1} of {len(spaces.branches)}")
        plan = result.plans[0]
        assert plan is not None
        plans.append(plan)
        evaluations += evaluator.evaluations
        curve += [step._replace(episodes=step.episodes + k * episodes) for step in result.curve]
    tree = branch_as_tree(spaces.tree.problem, spaces.branches[0].problem, plans)
    return _result(spaces, "branch", tree, evaluations, time.perf_counter() - began, curve, oracle)


def run_tree(
    spaces: SearchSpaces, config: SearchConfig, branch: MethodResult | None, progress: Progress,
    oracle: Oracle | None = None, name: str = "tree",
) -> MethodResult:  # fmt: skip
    """Model tree search [Wang 2020, alg. 3], from the optimal branches if they are given (boosting).

    Episodes and evaluations of the branch search count as the tree's own. Where the best tree that was met breaks the
    limit on energy, which the exact optimum keeps, it is searched again, energy half as dear again.
    """
    began = time.perf_counter()
    boosted = branch is not None and config.boosting
    spent = len(spaces.branches) * max(1, round(_BRANCH_SHARE * config.budget / len(spaces.branches))) if boosted else 0
    evaluations = branch.evaluations if boosted and branch is not None else 0
    start = list(branch.plans) if boosted and branch is not None else None
    settings = _settings(config, max(1, config.budget - spent))
    space = spaces.tree
    for _ in range(_RAISES):
        evaluator = _evaluator(space, config, oracle)
        evaluator.evaluations = evaluations
        search = Reinforce(space.problem, evaluator, settings, seed=config.seed, boosted=start)
        run = _ran(search, progress, name)
        evaluations = evaluator.evaluations
        if run.outcome.energy_mj <= space.problem.energy_limit_mj:
            break
        space = priced(space, _DEARER * space.problem.energy_worth, space.problem.energy_limit_mj)
    curve = [step._replace(episodes=step.episodes + spent) for step in run.curve]
    seconds = time.perf_counter() - began + (branch.seconds if boosted and branch is not None else 0.0)
    return _result(spaces, name, run.plans, evaluations, seconds, curve, oracle)


def run_tabular(spaces: SearchSpaces, config: SearchConfig, method: str, evaluations: int) -> MethodResult:
    """`random` or `egreedy` search with as many evaluations as the tree search had."""
    began = time.perf_counter()
    evaluator = Evaluator(spaces.tree.problem, pool=config.pool)
    rng = np.random.default_rng([config.seed, sum(map(ord, method))])
    search = random_search if method == "random" else egreedy_search
    best = search(spaces.tree.problem, evaluator, evaluations=max(1, evaluations), rng=rng)
    seconds = time.perf_counter() - began
    return _result(spaces, method, best.plans, evaluator.evaluations, seconds, best.curve)


def run_exact(spaces: SearchSpaces) -> dict[str, Any]:
    """The true optimum over all trees, as the search values them (`valued`) and as predicted (the rest)."""
    began = time.perf_counter()
    best = solve(spaces.tree.problem)
    outcome = Evaluator(spaces.tree.problem.unpriced, accuracy=spaces.tree.predict).tree(best.plans).outcome
    return {**outcome._asdict(), "valued": best.outcome.reward, "seconds": time.perf_counter() - began}


def run_optimum(spaces: SearchSpaces) -> MethodResult:
    """The tree that `run_exact` values, as a method that can be trained, measured and handed over."""
    began = time.perf_counter()
    plans = solve(spaces.tree.problem).plans
    return _result(spaces, OPTIMUM, plans, 0, time.perf_counter() - began)


def run_unforked(spaces: SearchSpaces) -> MethodResult:
    """The true optimum over single paths, taken whatever the link is like: what forking has to beat."""
    began = time.perf_counter()
    whole = spaces.unforked.problem
    plan = solve(whole).plans[0]
    assert plan is not None
    tree = branch_as_tree(spaces.tree.problem, whole, [plan] * len(spaces.branches))
    return _result(spaces, UNFORKED, tree, 0, time.perf_counter() - began)


def reward_of(problem: Problem, plans: TreePlan, seen: Mapping[PlanPath, PathOutcome]) -> Outcome:
    """What a tree is worth with accuracies, and rates of leaving, known per path (plans from the first level on)."""
    evaluator = Evaluator(problem, accuracy=lambda path: seen[path].accuracy, rate=lambda path: seen[path].rate)
    return evaluator.tree(plans).outcome


def _settings(config: SearchConfig, episodes: int) -> ReinforceConfig:
    return ReinforceConfig(
        episodes=episodes,
        batch=1 if config.distillation == "branch" else ReinforceConfig.batch,
        fair_chances=ReinforceConfig.fair_chances if config.fair_chances else 0.0,
    )


def _evaluator(space: Space, config: SearchConfig, oracle: Oracle | None) -> Evaluator:
    if oracle is None:
        return Evaluator(space.problem, pool=config.pool)
    return Evaluator(space.problem, pool=config.pool, accuracy=lambda path: space.guard(oracle(space, path)))


def _ran(search: Reinforce, progress: Progress, text: str) -> BestTree:
    for step in search.run():
        progress(step.episodes, search.config.episodes, f"{text}: best reward {step.best:.2f}")
    assert search.found is not None
    return search.found


def _surgery_plan(spaces: SearchSpaces, k: int) -> Plan:
    spec, scenario = spaces.network.spec, spaces.scenario
    mbps = scenario.types.representative_mbps[k]
    cut = surgery(spec, scenario.device, scenario.cloud, lambda size: scenario.transfer.ms(size, mbps))
    whole = spaces.branches[k].problem
    place = legal_place(spec, cut)
    if place is None:  # several tensors cross: the best cut that one tensor crosses
        evaluator = Evaluator(whole)
        place = max(
            range(whole.blocks[0].places + 1), key=lambda p: evaluator.tree([_kept(whole, p)]).outcome.reward
        )  # fmt: skip
    return _kept(whole, place)


def _kept(whole: Problem, place: int) -> Plan:
    return Plan(place, tuple(itertools.repeat(KEEP, whole.blocks[0].device_units(place))))


def _result(
    spaces: SearchSpaces, method: str, plans: TreePlan, evaluations: int, seconds: float, curve: Sequence[Step] = (),
    oracle: Oracle | None = None,
) -> MethodResult:  # fmt: skip
    space = spaces.tree

    def accuracy(path: PlanPath) -> float:
        return space.predict(path) if oracle is None else oracle(space, path)

    outcome = Evaluator(space.problem.unpriced, accuracy=accuracy).tree(plans).outcome
    valued = Evaluator(space.problem, accuracy=lambda path: space.guard(accuracy(path))).tree(plans).outcome
    return MethodResult(
        method=method, plans=tuple(plans), valued=valued.reward, reward=outcome.reward, latency_ms=outcome.latency_ms,
        accuracy=outcome.accuracy, energy_mj=outcome.energy_mj, evaluations=evaluations, seconds=seconds,
        curve=tuple(curve),
    )  # fmt: skip
