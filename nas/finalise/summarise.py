"""summary.json: what a search found, in numbers that say whether they were measured, predicted or simulated."""

import datetime
import importlib.metadata
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from modeltree.link.traces import Trace
from modeltree.tree.emulate import emulate, oracle, spread_starts
from modeltree.tree.render import path_text
from nas.compression.predictor import Quality
from nas.config import SearchConfig
from nas.finalise.finetune import complete_paths
from nas.finalise.link_states import link_states
from nas.finalise.select import Concluded
from nas.finalise.tree_builder import TreeBuilder, layers_of
from nas.jobs.machine import commit
from nas.names import ACTIONS, METHOD_BY_NAME, UNFORKED
from nas.quality.agreement import Agreement
from nas.quality.measure import Measure
from nas.quality.own_metric import OwnMetric
from nas.results.summary import SUMMARY_VERSION
from nas.training.base_network import Prepared
from nas.treesearch.evaluator import PathOutcome
from nas.treesearch.methods import MethodResult
from nas.treesearch.options.savings import savings
from nas.treesearch.problem import Outcome
from nas.treesearch.search_spaces import SearchSpaces
from nas.treesearch.space import Scenario

_STARTS = 200
_PACKAGES = ("torch", "torch-pruning", "networkx", "numpy", "scipy", "scikit-learn", "msgspec")


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What a search found out before anything was measured at its end.

    results : per method. exact : the optimum of the predictor (`run_exact`); None where it was not computed.
    unforked : the best single path (`run_unforked`), likewise.
    quality : of the predictor. seconds : per stage.
    """

    results: Mapping[str, MethodResult]
    exact: Mapping[str, float] | None
    quality: Quality
    seconds: Mapping[str, float]
    unforked: MethodResult | None = None


@dataclass(frozen=True, kw_only=True)
class _Scale:
    """Predicted accuracies are the base network's measured one less the predicted drop, so that they stand on the same
    scale as measured ones; predicted rewards likewise.

    points : what is added to a predicted accuracy, in percent. reward : what that adds to a reward.
    """

    points: float
    reward: float


def summarise(
    config: SearchConfig, prepared: Prepared, trace: Trace, spaces: SearchSpaces, findings: Findings,
    concluded: Concluded,
) -> dict[str, Any]:  # fmt: skip
    """Everything the report shows and a script may want, as plain values."""
    problem = spaces.tree.problem
    points = concluded.base_accuracy[1] - float(problem.accuracy[0])
    scale = _Scale(points=points, reward=problem.accuracy_worth * points)
    summary = {
        "version": SUMMARY_VERSION,
        "config": msgspec.to_builtins(config),
        "scenario": _scenario(config, trace, spaces.scenario),
        "base": {
            "name": config.base, "accuracy": concluded.base_accuracy[1], "macs": prepared.network.spec.macs(),
            "layers": len(layers_of(prepared.network)), "places": list(concluded.tree.places),
        },
        **_measure(prepared.measure),
        "chosen": concluded.chosen,
        "searched": None if concluded.searched is None else concluded.searched._asdict(),
        **_along_trace(trace, spaces.scenario, findings.results, concluded, scale),
        "exact": _exact(findings.exact, findings.results.get("tree"), scale),
        **_link_states(config, prepared, spaces, findings.unforked, concluded, scale),
        "curves": {
            name: [(step.evaluations, step.best + scale.reward) for step in result.curve]
            for name, result in findings.results.items()
            if name in ("tree", "random", "egreedy")
        },
        "predictor": findings.quality._asdict(),
        **_endings(prepared, spaces),
        "branches": [
            {"leaf": node.id, "latency_ms": node.leaf.latency_ms, "accuracy": node.leaf.accuracy,
             "chance": node.leaf.chance}
            for node in concluded.tree.leaves() if node.leaf is not None
        ],
        "dropped": [
            {"layer": prepared.network.units[unit].name, "choice": str(choice), "why": why}
            for (unit, choice), why in sorted(spaces.tree.dropped.items())
        ],
        "savings": [
            saving._asdict()
            for saving in savings(
                prepared.network, spaces.library, spaces.scenario.device, spaces.tree.dropped
            )
        ],
        "finetuning": concluded.finetuning,
        "seconds": dict(findings.seconds),
        "provenance": provenance(),
    }  # fmt: skip
    return msgspec.to_builtins(summary, enc_hook=_plain)


def _measure(measure: Measure) -> dict[str, Any]:
    """What accuracy is, where it is not right classes."""
    if isinstance(measure, Agreement):
        kinds = {output.name: output.kind for output in measure.outputs}
        return {"measure": {"name": measure.name, "outputs": kinds}}
    if isinstance(measure, OwnMetric):
        return {"measure": {"name": measure.name, "low": measure.low, "high": measure.high}}
    return {}


def _scenario(config: SearchConfig, trace: Trace, scenario: Scenario) -> dict[str, Any]:
    return {
        "trace": config.trace, "trace_origin": trace.origin, "rtt_ms": trace.rtt_ms,
        "bandwidth_mbps": scenario.types.representative_mbps, "edges_mbps": scenario.types.edges_mbps,
        "device": scenario.device.name, "device_origin": scenario.device.origin,
        "cloud": scenario.cloud.name, "cloud_origin": scenario.cloud.origin,
    }  # fmt: skip


def _along_trace(
    trace: Trace, scenario: Scenario, results: Mapping[str, MethodResult], concluded: Concluded, scale: _Scale
) -> dict[str, Any]:
    """Every tree played along the trace, the hindsight oracle, and the row of each method."""
    starts_s = spread_starts(trace, _STARTS)
    runs = {name: emulate(tree, trace, starts_s=starts_s) for name, tree in concluded.trees.items()}
    along = {
        name: _means(run.latency_ms, run.accuracy, scenario.reward.of(run.accuracy, run.latency_ms))
        for name, run in runs.items()
    }
    bound = oracle(list(concluded.trees.values()), trace, starts_s, scenario.reward)
    return {
        "methods": [
            _row(name, results.get(name), concluded, along.get(name), scale)
            for name in METHOD_BY_NAME
            if name in results or name in concluded.outcomes
        ],
        "oracle_along_trace": _means(bound.latency_ms, bound.accuracy, bound.reward),
        "along_trace": {
            "time_s": starts_s,
            "bandwidth_mbps": [trace.at(float(at_s)) for at_s in starts_s],
            "latency_ms": {name: run.latency_ms for name, run in runs.items()},
        },
    }


def _endings(prepared: Prepared, spaces: SearchSpaces) -> dict[str, Any]:
    """The early exits and the coded hand-overs that the search was offered."""
    known, places = spaces.tree.endings, prepared.network.spec.places
    return {
        "exits": [
            {"exit": one.exit, "place": one.place, "drop": one.drop, "entropy": one.entropy, "rate": one.rate,
             "loss": one.loss, "head_ms": spaces.scenario.device.compute_ms(one.layers)}
            for one in known.exits
        ],
        "codes": [
            {"place": one.place, "bits": one.bits, "kept": one.kept, "bytes": one.bytes, "drop": one.drop,
             "raw_bytes": places[one.place].bytes}
            for one in known.codes
        ],
        "pictures": [
            {"code": ending.picture, "bytes": ending.bytes, "raw_bytes": places[0].bytes, "encode_ms": ending.device_ms,
             "drop": next(one.drop for one in known.pictures if one.code == ending.picture)}
            for ending in spaces.tree.problem.blocks[0].endings[0] if ending.picture
        ],
    }  # fmt: skip


def _link_states(
    config: SearchConfig, prepared: Prepared, spaces: SearchSpaces, unforked: MethodResult | None,
    concluded: Concluded, scale: _Scale,
) -> dict[str, Any]:  # fmt: skip
    """What is done in every state of the link, and the best single path that is taken in all of them."""
    trees = {name: concluded.trees[name] for name in METHOD_BY_NAME if name in concluded.trees and name != ACTIONS}
    single = None
    if unforked is not None and spaces.scenario.types.count > 1:
        builder = TreeBuilder(spaces, spaces.cuts, prepared, base=config.base, trace=config.trace)
        seen = {
            path: PathOutcome(spaces.tree.predict(path), spaces.tree.problem.ending_of(path).rate or 1.0)
            for path in complete_paths(spaces.tree, list(unforked.plans))
        }
        tree = builder.tree(unforked.plans, seen, "predicted")
        trees = {UNFORKED: tree, **trees}
        single = {
            "reward": unforked.reward + scale.reward, "latency_ms": unforked.latency_ms,
            "accuracy": unforked.accuracy + scale.points, "path": path_text(tree.path(tree.leaves()[-1].id)),
        }  # fmt: skip
    return {UNFORKED: single, "link_states": link_states(concluded.tree, trees, spaces.scenario)}


def provenance() -> dict[str, Any]:
    """Commit, versions, machine and date."""
    return {
        "commit": commit(),
        "versions": {"python": platform.python_version()} | {n: importlib.metadata.version(n) for n in _PACKAGES},
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
    }


def _row(
    name: str, result: MethodResult | None, concluded: Concluded, along: dict[str, float] | None, scale: _Scale
) -> dict[str, Any]:  # fmt: skip
    outcome = concluded.outcomes.get(name)
    if outcome is None:
        assert result is not None
        outcome = Outcome(
            result.reward + scale.reward, result.latency_ms, result.accuracy + scale.points, result.energy_mj
        )
    predicted_reward = None if result is None else result.reward + scale.reward
    predicted_accuracy = None if result is None else result.accuracy + scale.points
    return {
        "method": name,
        "reward": outcome.reward,
        "latency_ms": outcome.latency_ms,
        "accuracy": outcome.accuracy,
        "accuracy_origin": "measured" if name in concluded.outcomes else "predicted",
        "latency_origin": "predicted",
        "energy_mj": outcome.energy_mj or None,
        "predicted_reward": predicted_reward,
        "predicted_accuracy": predicted_accuracy,
        "evaluations": 0 if result is None else result.evaluations,
        "seconds": 0.0 if result is None else result.seconds,
        "along_trace": along,
    }


def _exact(
    exact: Mapping[str, float] | None, tree: MethodResult | None, scale: _Scale
) -> dict[str, float] | None:  # fmt: skip
    if exact is None:
        return None
    found = {} if tree is None else {"found_percent": 100.0 * tree.valued / exact["valued"]}
    return found | {
        "reward": exact["reward"] + scale.reward, "latency_ms": exact["latency_ms"],
        "accuracy": exact["accuracy"] + scale.points, "seconds": exact["seconds"],
    }  # fmt: skip


def _means(latency_ms: np.ndarray, accuracy: np.ndarray, reward: np.ndarray) -> dict[str, float]:
    return {
        "latency_ms": float(np.mean(latency_ms)), "p95_latency_ms": float(np.quantile(latency_ms, 0.95)),
        "accuracy": float(np.mean(accuracy)), "reward": float(np.mean(reward)),
    }  # fmt: skip


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value)} does not go into a summary")
