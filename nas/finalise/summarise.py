"""summary.json: what a search found, in numbers that say whether they were measured, predicted or simulated."""

import datetime
import importlib.metadata
import os
import platform
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np

from modeltree.emulate import emulate, oracle, spread_starts
from modeltree.link.traces import Trace
from nas.compression.predictor import Quality
from nas.config import SearchConfig
from nas.finalise.select import Concluded
from nas.finalise.tree_builder import layers_of
from nas.jobs.machine import commit
from nas.names import METHOD_BY_NAME
from nas.results.summary import SUMMARY_VERSION
from nas.training.base_network import Prepared
from nas.treesearch.methods import MethodResult
from nas.treesearch.problem import Outcome
from nas.treesearch.search_spaces import SearchSpaces
from nas.treesearch.space import Scenario

_STARTS = 200
_PACKAGES = ("torch", "torch-pruning", "tensorly", "networkx", "numpy", "scipy", "scikit-learn", "msgspec")


def summarise(
    config: SearchConfig, prepared: Prepared, scenario: Scenario, trace: Trace, spaces: SearchSpaces,
    results: Mapping[str, MethodResult], concluded: Concluded, quality: Quality, exact: Mapping[str, float] | None,
    seconds: Mapping[str, float],
) -> dict[str, Any]:  # fmt: skip
    """Everything the report shows and a script may want, as plain values.

    Predicted accuracies are the base network's measured one less the predicted drop, so that they stand on the same
    scale as measured ones; predicted rewards likewise.
    """
    problem = spaces.tree.problem
    shift = concluded.base_accuracy[1] - float(problem.accuracy[0])
    worth = problem.accuracy_worth * shift
    starts = spread_starts(trace, _STARTS)
    runs = {name: emulate(tree, trace, starts_s=starts) for name, tree in concluded.trees.items()}
    along = {
        name: _along(run.latency_ms, run.accuracy, scenario.reward.of(run.accuracy, run.latency_ms))
        for name, run in runs.items()
    }
    bound = oracle(list(concluded.trees.values()), trace, starts, scenario.reward)
    rows = [
        _row(name, results.get(name), concluded, along.get(name), shift, worth)
        for name in METHOD_BY_NAME
        if name in results or name in concluded.outcomes
    ]
    summary = {
        "version": SUMMARY_VERSION,
        "config": msgspec.to_builtins(config),
        "scenario": {
            "trace": config.trace, "trace_origin": trace.origin, "rtt_ms": trace.rtt_ms,
            "bandwidth_mbps": scenario.types.representative_mbps, "edges_mbps": scenario.types.edges_mbps,
            "device": scenario.device.name, "device_origin": scenario.device.origin,
            "cloud": scenario.cloud.name, "cloud_origin": scenario.cloud.origin,
        },
        "base": {
            "name": config.base, "accuracy": concluded.base_accuracy[1], "macs": prepared.network.spec.macs(),
            "layers": len(layers_of(prepared.network)), "places": list(concluded.tree.places),
        },
        "chosen": concluded.chosen,
        "methods": rows,
        "exact": _exact(exact, results.get("tree"), worth, shift),
        "oracle_along_trace": _along(bound.latency_ms, bound.accuracy, bound.reward),
        "curves": {
            name: [(step.evaluations, step.best + worth) for step in result.curve]
            for name, result in results.items()
            if name in ("tree", "random", "egreedy")
        },
        "predictor": quality._asdict(),
        "exits": [
            {"exit": known.exit, "place": known.place, "drop": known.drop, "entropy": known.entropy,
             "rate": known.rate, "loss": known.loss, "head_ms": scenario.device.compute_ms(known.layers)}
            for known in spaces.tree.endings.exits
        ],
        "codes": [
            {"place": known.place, "bits": known.bits, "kept": known.kept, "bytes": known.bytes, "drop": known.drop,
             "raw_bytes": prepared.network.spec.places[known.place].bytes}
            for known in spaces.tree.endings.codes
        ],
        "branches": [
            {"leaf": node.id, "latency_ms": node.leaf.latency_ms, "accuracy": node.leaf.accuracy,
             "chance": node.leaf.chance}
            for node in concluded.tree.leaves() if node.leaf is not None
        ],
        "along_trace": {
            "time_s": starts, "bandwidth_mbps": [trace.at(float(t)) for t in starts],
            "latency_ms": {name: run.latency_ms for name, run in runs.items()},
        },
        "dropped": [
            {"layer": prepared.network.units[unit].name, "choice": str(choice), "why": why}
            for (unit, choice), why in sorted(spaces.tree.dropped.items())
        ],
        "finetuning": concluded.finetuning,
        "seconds": dict(seconds),
        "provenance": provenance(),
    }  # fmt: skip
    return msgspec.to_builtins(summary, enc_hook=_plain)


def provenance() -> dict[str, Any]:
    """Commit, versions, machine and date."""
    return {
        "commit": commit(),
        "versions": {"python": platform.python_version()} | {n: importlib.metadata.version(n) for n in _PACKAGES},
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
    }


def _row(
    name: str, result: MethodResult | None, concluded: Concluded, along: dict[str, float] | None, shift: float,
    worth: float,
) -> dict[str, Any]:  # fmt: skip
    outcome = concluded.outcomes.get(name)
    if outcome is None:
        assert result is not None
        outcome = Outcome(result.reward + worth, result.latency_ms, result.accuracy + shift, result.energy_mj)
    predicted_reward = None if result is None else result.reward + worth
    predicted_accuracy = None if result is None else result.accuracy + shift
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
    exact: Mapping[str, float] | None, tree: MethodResult | None, worth: float, shift: float
) -> dict[str, float] | None:  # fmt: skip
    if exact is None:
        return None
    found = {} if tree is None else {"found_percent": 100.0 * tree.valued / exact["valued"]}
    return found | {
        "reward": exact["reward"] + worth, "latency_ms": exact["latency_ms"], "accuracy": exact["accuracy"] + shift,
        "seconds": exact["seconds"],
    }  # fmt: skip


def _along(latency_ms: np.ndarray, accuracy: np.ndarray, reward: np.ndarray) -> dict[str, float]:
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
