"""What a field run means, in plain sentences. It says so when splitting does not help."""

import math
from collections.abc import Sequence

from modeltree.tree.render import ms_text
from nas.field.methods import AS_PROFILE
from nas.field.record import FieldRun
from nas.field.tally import DRIFT_MS, DRIFT_SHARE, Drift, Tally, lead_ms
from nas.names import METHOD_BY_NAME, STRATEGIES
from nas.results.verdict import TIE_REWARD

MOST_ERROR = 0.01
"""Of the largest logit; a larger difference to torch is more than rounding."""

MOST_SLOWER = 1.2
"""Times that blocks may take of what a played profile predicts; beyond, the machine and not the device was measured."""

REMEDIES = {
    "device": "Measure the device again (nas profile --out device.json, on it) and search with --device device.json.",
    "transfer": "Record the link (nas record --server URL --out link.csv) and search with --trace link.csv.",
    "cloud": "Measure the server again (nas profile --out cloud.json, on it) and search with --cloud cloud.json.",
}
"""What to do where a part has drifted."""


def best_of(found: Sequence[Tally]) -> Tally | None:
    """The simplest method whose reward ties with the highest; None if nothing was measured. `found`: simplest first."""
    measured = [method for method in found if math.isfinite(method.reward)]
    top = max((method.reward for method in measured), default=math.nan)
    return next((method for method in measured if method.reward >= top - TIE_REWARD), None)


def subject_of(found: Sequence[Tally]) -> Tally | None:
    """The method that the page is about: the tree, else the last one that was measured."""
    measured = [method for method in found if method.total_ms.size]
    return next((method for method in measured if method.name == "tree"), measured[-1] if measured else None)


def field_verdict(field: FieldRun, found: Sequence[Tally]) -> list[str]:
    """The best choice, its price, its distance from the optimum, what failed, what was checked."""
    subject = subject_of(found)
    if subject is None:
        return ["No inference was measured, so there is no verdict."]
    sentences = [
        _headline(found, subject),
        _price(found, subject),
        _chance(found),
        _bound(subject),
        _foretold(subject),
        _failures(found, field.deadline_ms),
        _kept_up(field, found),
        _checks(found),
    ]
    return [sentence for sentence in sentences if sentence]


def alarms(found: Sequence[Drift]) -> list[str]:
    """One sentence for each part that has drifted: how far, and what to do."""
    said = []
    for part, remedy in REMEDIES.items():
        compared = [one for one in found if one.part == part]
        off = [one for one in compared if one.alarming]
        if off:
            worst = max(off, key=lambda one: abs(one.measured_ms - one.predicted_ms))
            where = f"{worst.title}, leaf {worst.leaf.leaf}: {ms_text(worst.predicted_ms)} predicted, "
            where += f"{ms_text(worst.measured_ms)} measured"
            ways = "path" if len(compared) == 1 else "paths"
            said.append(
                f"The {part} part is off by more than {100 * DRIFT_SHARE:.0f} % and {DRIFT_MS:g} ms on {len(off)} of "
                f"{len(compared)} {ways} (most on {where}). {remedy}"
            )
    return said


def _headline(found: Sequence[Tally], subject: Tally) -> str:
    best = best_of(found)
    if best is None:
        return f"{subject.title} took {ms_text(subject.mean_ms)} on average; what its answers are worth is not known."
    worth = f"{ms_text(best.mean_ms)} on average at {best.accuracy:.1f} % accuracy (reward {best.reward:.1f})"
    if sum(method.total_ms.size > 0 for method in found) == 1:
        return f"Only one method was run, so nothing is compared: {_named(best)} took {worth}."
    match best.name:
        case "device_only":
            return f"Splitting does not help on this link: keep everything on the device, {worth}."
        case "cloud_jpeg":
            return f"Splitting does not help on this link: send the image to the cloud as a JPEG, {worth}."
        case "cloud_raw":
            return f"Splitting does not help on this link: send the raw image to the cloud, {worth}."
        case "surgery":
            return f"Cutting the network without compressing it (surgery) is the best choice on this link: {worth}."
        case "branch" if subject.name == "tree" and subject.reward >= best.reward - TIE_REWARD:
            return f"The tree only ties with the branch: a branch chosen once at the start is enough, {worth}."
        case "branch":
            return f"The branch, chosen once at the start, is the best choice on this link: {worth}."
        case "tree":
            stays = "" if best.handed_over > 0 else "; it never handed over, all of its gain is compression here"
            return f"The model tree is the best choice on this link: {worth}{stays}."
    return f"{best.title} is the best choice on this link: {worth}."


def _price(found: Sequence[Tally], subject: Tally) -> str:
    """How the subject compares with the ones a reader would try first."""
    first = ("surgery", "branch", "device_only", "cloud_jpeg", "cloud_raw")
    others = [one for name in first for one in found if one.name == name and one is not subject and one.total_ms.size]
    parts: list[str] = []
    for other in others:
        who = "" if parts else f"{_named(subject)} "
        parts.append(f"against {_named(other)} ({ms_text(other.mean_ms)}) {who}{_against(subject, other)}")
    return _sentence(parts)


def _against(subject: Tally, other: Tally) -> str:
    lead, chance = lead_ms(subject, other)
    if abs(lead) <= chance:
        sure = f" ± {ms_text(chance)}" if math.isfinite(chance) else ""
        time = f"differs by no more than chance ({-lead:+.3g}{sure})"
    elif other.mean_ms > 0 and subject.mean_ms < 3 * other.mean_ms:
        ratio = subject.mean_ms / other.mean_ms
        time = f"takes {100 * abs(ratio - 1):.0f} % {'less' if ratio < 1 else 'more'} time"
    else:
        time = f"takes {subject.mean_ms / other.mean_ms:.2g} times as long" if other.mean_ms > 0 else "takes longer"
    points = subject.accuracy - other.accuracy
    if not math.isfinite(points):
        return time
    if abs(points) < 0.05:
        return f"{time} at the same accuracy"
    return f"{time} at {abs(points):.1f} points {'more' if points > 0 else 'less'} accuracy"


def _chance(found: Sequence[Tally]) -> str:
    """A warning where the best choice has not really been told from the next."""
    best = best_of(found)
    rivals = [one for one in found if one is not best and math.isfinite(one.reward) and one.name in STRATEGIES]
    if best is None or not rivals:
        return ""
    rival = max(rivals, key=lambda one: one.reward)
    ahead = best.reward - rival.reward
    if not TIE_REWARD < ahead <= lead_ms(best, rival)[1] * best.per_ms:
        return ""
    count = best.total_ms.size
    return f"So few inferences ({count}) do not tell {_named(best)} from {_named(rival)} for sure: run longer."


def _bound(subject: Tally) -> str:
    if not math.isfinite(subject.over_oracle):
        return ""
    side = "above" if subject.over_oracle >= 0 else "below"
    tail = "" if subject.over_oracle >= 0 else ", as the optimum weighs accuracy too, or the machine was faster then"
    return (
        "Whoever knew the link's future and had every path of every method to choose from would need "
        f"{ms_text(subject.oracle_ms)}: {_named(subject)} is {abs(subject.over_oracle):.0f} % {side} that{tail}."
    )


def _foretold(subject: Tally) -> str:
    """How far emulation can be believed, and where the rest comes from."""
    if not math.isfinite(subject.emulated_ms):
        return ""
    text = f"Emulation with the tree's predictions foretold {ms_text(subject.emulated_ms)} for {_named(subject)}"
    if math.isfinite(subject.replayed_ms):
        rest = subject.mean_ms - subject.replayed_ms
        text += f", and with the times measured here {ms_text(subject.replayed_ms)}; the remaining {rest:+.3g} ms are "
        text += "the estimator, the switch and the link itself"
    return f"{text}."


def _failures(found: Sequence[Tally], deadline_ms: float | None) -> str:
    shots, alone = sum(one.total_ms.size for one in found), sum(one.alone for one in found)
    late, out = sum(one.late for one in found), sum(one.left_out for one in found)
    parts = []
    if alone:
        each = ", ".join(f"{one.title} {one.alone}" for one in found if one.alone)
        parts.append(f"{alone} of {shots} inferences went on here though the path hands over ({each})")
    if deadline_ms is not None:
        parts.append(f"{late or 'none'} of {shots} missed the deadline of {ms_text(deadline_ms)}")
    if out:
        parts.append(f"{out} are left out, as their times cannot be true")
    return _sentence(parts)


def _kept_up(field: FieldRun, found: Sequence[Tally]) -> str:
    """A warning where the machine was too slow or too busy for the device that it was to play."""
    if not field.slowdown.startswith(AS_PROFILE):
        return ""
    leaves = [leaf for one in found for leaf in one.run.leaves if leaf.device_ms and leaf.device_predicted_ms > 0]
    played_ms = sum(leaf.shots * leaf.device_predicted_ms for leaf in leaves)
    met_ms = sum(leaf.shots * leaf.device_ms for leaf in leaves if leaf.device_ms)
    if not leaves or met_ms <= MOST_SLOWER * played_ms:
        return ""
    return (
        f"This machine was too slow, or too busy, to play {field.device}: its blocks took {met_ms / played_ms:.2g} "
        "times what the profile predicts, so that device and server times are this machine's. Run it on an idle "
        "machine, or play a slower device."
    )


def _checks(found: Sequence[Tally]) -> str:
    shots, checked = sum(one.total_ms.size for one in found), sum(one.checked for one in found)
    if not checked:
        return "No answer was checked against torch."
    errors = [one.error for one in found if one.checked]
    worst = math.nan if any(map(math.isnan, errors)) else max(errors)
    text = f"{checked} of {shots} answers were checked against torch: the largest difference is "
    if not math.isfinite(worst):
        return f"{text}not a number. That is a fault: run nas show BUNDLE --verify."
    text += f"{100 * worst:.2g} % of the largest logit"
    return f"{text}." if worst <= MOST_ERROR else f"{text}, more than rounding: run nas show BUNDLE --verify."


def _named(method: Tally) -> str:
    known = METHOD_BY_NAME.get(method.name)
    return method.title if known is None else known.phrase


def _sentence(parts: Sequence[str]) -> str:
    """Parts joined, with a capital and a full stop; nothing for no parts."""
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}." if text else ""
