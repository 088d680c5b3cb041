"""What a run means, in two to five plain sentences. It says so when splitting does not help."""

import math
from collections.abc import Mapping
from typing import Any

from modeltree.tree import ExitFork, ModelTree
from modeltree.tree.render import ms_text
from nas.names import METHOD_TABLE, OPTIMUM, STRATEGIES, phrase
from nas.results.summary import Exact, MethodRow, Summary, Unforked, read_summary

TIE_REWARD = 0.5
"""Rewards (of 400) closer than this count as equal: less than a millisecond, or a quarter point of accuracy."""

STEADY_RATIO = 1.5
"""A link whose fastest type is less than this times its slowest hardly varies."""


def verdict(summary: Mapping[str, Any], tree: ModelTree | None = None) -> list[str]:
    """Two to five sentences: the best honest choice, its price, the search's distance from the optimum, the caveat.

    The best choice is the simplest method whose reward ties with the highest. With `tree`, it also says when the tree
    never cuts the network in the middle.

    Raises
    ------
    FormatError : not the summary of a run.
    """
    return verdict_of(read_summary(summary), tree)


def verdict_of(summary: Summary, tree: ModelTree | None = None) -> list[str]:
    """`verdict` of a summary that is already checked."""
    by_name = {
        name: method
        for name in STRATEGIES
        if (method := summary.method(name)) is not None and math.isfinite(method.reward)
    }
    if not by_name:
        return ["No method was compared, so there is no verdict.", _origin(summary)]
    best = best_choice(summary)
    assert best is not None
    sentences = [
        _measure(summary),
        _headline(best, by_name, summary, tree),
        _caveats(best, by_name),
        _energy(by_name.get("tree", best), summary),
        _price(by_name.get("tree", best), by_name, summary),
        _search(summary.exact, summary),
    ]
    return [sentence for sentence in (*sentences, _origin(summary)) if sentence]


def best_choice(summary: Summary) -> MethodRow | None:
    """The simplest method whose reward ties with the highest; None if there is none."""
    methods = [summary.method(name) for name in STRATEGIES]
    usable = [method for method in methods if method is not None and math.isfinite(method.reward)]
    top = max((method.reward for method in usable), default=math.nan)
    return next((method for method in usable if method.reward >= top - TIE_REWARD), None)


def _headline(best: MethodRow, by_name: Mapping[str, MethodRow], summary: Summary, tree: ModelTree | None) -> str:
    worth = f"{ms_text(best.latency_ms)} at {best.accuracy:.1f} % accuracy (reward {best.reward:.1f})"
    match best.method:
        case "device_only":
            return f"Splitting does not help here: keep everything on the device, {worth}."
        case "cloud_jpeg":
            return f"Splitting does not help here: send the image to the cloud as a JPEG, {worth}."
        case "cloud_raw":
            return f"Splitting does not help here: send the raw image to the cloud, {worth}."
        case "surgery":
            return f"Cutting the network without compressing it (surgery) is the best choice: {worth}."
        case "branch":
            return _tie_or_win(best, by_name.get("tree"), summary, worth, tree)
    return f"The model tree is the best choice: {worth}{_without_split(tree)}."


def _tie_or_win(
    branch: MethodRow, rival: MethodRow | None, summary: Summary, worth: str, tree: ModelTree | None
) -> str:  # fmt: skip
    if rival is None or rival.reward < branch.reward - TIE_REWARD:
        return f"The branch, chosen once at the start, is the best choice: {worth}."
    if tree is not None and all(node.handover is None for node in tree.nodes):
        return f"Splitting does not help here: a compressed network that stays on the device is best, {worth}."
    if gain := _gain_of_forking(branch, summary):
        return (
            f"Forking by the state of the link pays: {worth}, {gain:.1f} of reward more than any single path as "
            "predicted. Once, before the first block, is enough, so that the branch, chosen at the start of every "
            "inference, does as well as the tree."
        )
    levels = summary.scenario.bandwidth_mbps
    if levels and max(levels) < STEADY_RATIO * min(levels):
        why = f"the link hardly varies ({min(levels):.3g} to {max(levels):.3g} Mbit/s)"
    else:
        why = "changing its mind under way gains nothing on this link"
    return f"The tree only ties with the branch, as {why}: a branch chosen once at the start is enough, {worth}."


def _gain_of_forking(forking: MethodRow, summary: Summary) -> float:
    """Reward by which a method is predicted to beat any single path; 0 where that is a tie, or nothing forks."""
    single, states = summary.unforked, summary.link_states or []
    if single is None or len({state.leaf for state in states}) < 2 or forking.predicted_reward is None:
        return 0.0
    gain = forking.predicted_reward - single.reward
    return gain if gain > TIE_REWARD else 0.0


def _without_split(tree: ModelTree | None) -> str:
    """What to add when no path of the tree cuts the network in the middle."""
    if tree is None:
        return ""
    places = [node.handover.place for node in tree.nodes if node.handover is not None]
    if any(places):
        return ""
    if places:
        return "; it never splits the network, it either stays on the device or sends the image"
    exits = " and early exits" if any(isinstance(node.fork, ExitFork) for node in tree.nodes) else ""
    return f"; it never splits the network, all of its gain is compression{exits} on the device"


def _energy(tree: MethodRow, summary: Summary) -> str:
    """Whether a limit on energy was kept; nothing where none was set."""
    limit, taken = summary.config.get("energy_mj"), tree.energy_mj
    if not isinstance(limit, int | float) or taken is None:
        return ""
    if taken <= limit:
        return f"An inference takes {taken:.3g} mJ on average, within the {limit:g} mJ that were allowed."
    return f"An inference takes {taken:.3g} mJ on average, more than the {limit:g} mJ that were allowed."


def _caveats(best: MethodRow, by_name: Mapping[str, MethodRow]) -> str:
    """What the headline leaves out: a JPEG that beats the tree, another order along the trace."""
    said = []
    tree, jpeg = by_name.get("tree"), by_name.get("cloud_jpeg")
    if tree and jpeg and best.method not in ("cloud_jpeg", "tree") and jpeg.reward > tree.reward + TIE_REWARD:
        said.append(f"sending a JPEG to the cloud also beats the tree (reward {jpeg.reward:.1f} to {tree.reward:.1f})")
    if tree and best.reward > tree.reward + TIE_REWARD:
        said.append(f"the tree reaches {ms_text(tree.latency_ms)} at {tree.accuracy:.1f} % (reward {tree.reward:.1f})")
    along = {name: method.along_trace for name, method in by_name.items() if method.along_trace is not None}
    if best.method in along:
        ahead = max(along, key=lambda name: along[name].reward)
        lead = along[ahead].reward - along[best.method].reward
        if lead > TIE_REWARD:
            said.append(f"simulated along the trace, {phrase(ahead)} comes out ahead by {lead:.1f} reward points")
    return _sentence(said)


def _price(subject: MethodRow, by_name: Mapping[str, MethodRow], summary: Summary) -> str:
    """How much faster and less accurate a method is than the ones a reader would try first, and than the best path that
    is the same whatever the link is like."""
    others = [
        (f"{phrase(name)} ({ms_text(by_name[name].latency_ms)})", by_name[name])
        for name in ("device_only", "surgery", "cloud_jpeg")
        if name in by_name and name != subject.method
    ]
    parts: list[str] = []
    for known, other in others:
        who = "" if parts else f"{phrase(subject.method)} has "
        parts.append(f"compared with {known}, {who}{_against(subject.latency_ms, subject.accuracy, other)}")
    single, predicted = summary.unforked, (summary.method(summary.chosen) or subject).predicted_accuracy
    if single is not None and predicted is not None:
        alone = f"the best path without forks ({ms_text(single.latency_ms)}: {single.path})"
        against = _against(subject.latency_ms, predicted, single)
        parts.append(f"compared with {alone}, {against}, both as predicted")
    return _sentence(parts)


def _sentence(parts: list[str]) -> str:
    """Parts joined, with a capital and a full stop; nothing for no parts."""
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}." if text else ""


def _against(latency_ms: float, percent: float, other: MethodRow | Unforked) -> str:
    """What a latency in ms and an accuracy in percent are beside another method's."""
    ratio = latency_ms / other.latency_ms if other.latency_ms > 0 else math.nan
    if not math.isfinite(ratio):
        time = f"{ms_text(latency_ms)} against {ms_text(other.latency_ms)}"
    elif abs(ratio - 1) < 0.01:
        time = "the same latency"
    elif ratio >= 3:
        time = f"{ratio:.0f} times the latency"
    else:
        time = f"{100 * abs(ratio - 1):.0f} % {'less' if ratio < 1 else 'more'} latency"
    points = percent - other.accuracy
    if abs(points) < 0.05:
        accuracy = "the same accuracy"
    else:
        accuracy = f"{abs(points):.1f} points {'more' if points > 0 else 'less'} accuracy"
    return f"{time} and {accuracy}"


def _search(exact: Exact | None, summary: Summary) -> str:
    tree = summary.method("tree")
    if tree is None:
        return ""
    said = []
    if exact is not None and math.isfinite(exact.found_percent):
        if exact.found_percent >= 99.995:
            said.append(f"the search found the predictor's exact optimum (reward {exact.reward:.1f})")
        else:
            missing = max(100 - exact.found_percent, 0.0)
            said.append(f"the search came within {missing:.2g} % of the predictor's exact optimum ({exact.reward:.1f})")
            if summary.chosen == OPTIMUM:
                said.append("that optimum, trained and measured like the rest, is what is handed over as the tree")
    reached = _searched(tree)
    rivals = [(method.phrase, summary.method(method.name)) for method in METHOD_TABLE if method.rival]
    better = [name for name, rival in rivals if rival is not None and _searched(rival) > reached + TIE_REWARD]
    if better:
        said.append(f"{' and '.join(better)} found a better tree: give the controllers a larger budget")
    return _sentence(said)


def _measure(summary: Summary) -> str:
    """What accuracy means here; nothing where it is right classes."""
    measure, base = summary.measure, summary.base.accuracy
    if measure is None:
        return ""
    if measure.outputs:
        kinds = ", ".join(f"{name} as {kind}" for name, kind in measure.outputs.items())
        return f"Accuracy is agreement with the base network on the same images: {kinds}."
    value = measure.low + base / 100 * (measure.high - measure.low)
    return (
        f"Accuracy is {measure.name}, 0 to 100 % for {measure.low:g} to {measure.high:g}: the base network has "
        f"{base:.1f} %, {value:.4g}."
    )


def _searched(method: MethodRow) -> float:
    """The reward that the search itself saw."""
    return method.reward if method.predicted_reward is None else method.predicted_reward


def _origin(summary: Summary) -> str:
    device, cloud = summary.scenario.device or "the device", summary.scenario.cloud or "the cloud"
    origins = {method.accuracy_origin for method in summary.methods if method.method in STRATEGIES}
    accuracy = {
        frozenset({"measured"}): "accuracies are measured on test images",
        frozenset({"predicted"}): "accuracies are predicted as well",
    }.get(frozenset(origins), "accuracies are measured only where it says so")
    tail = f"; {accuracy}" if origins else ""
    return f"Latencies are predicted from the profiles of {device} and {cloud}, not timed on them{tail}."
