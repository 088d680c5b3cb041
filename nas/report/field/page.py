"""The page of a field run: what was measured along a link, beside what was predicted and emulated."""

import math
from collections.abc import Sequence

from markupsafe import Markup

from modeltree.tree.render import ms_text
from nas.field.record import FieldRun
from nas.field.tally import DRIFT_MS, DRIFT_SHARE, PARTS, Drift, Tally, drifts, mean, tallies, usable
from nas.field.verdict import alarms, best_of, field_verdict, subject_of
from nas.report.field import charts as field_charts
from nas.report.field.drift import drift_section
from nas.report.field.endings import endings_section
from nas.report.pieces import blocks, cells, trace
from nas.report.pieces.blocks import section
from nas.report.pieces.charts import figure
from nas.report.pieces.colours import BOUND, colours, part_key
from nas.report.pieces.table import Column, bound, comparison

KINDS = {
    "measured": "timed in this run, on this machine",
    "predicted": "by the tree, from the profiles it was searched with",
    "simulated": "emulated: predicted compute times played along the same trace",
    "computed": "from this run's measured times and the true trace",
}
"""What the tags say on this page."""

_NOTE = (
    "Every method had its turn over the same trace. Reward weighs accuracy and mean latency with the paper's weights; "
    "★ marks the best of a column; the best choice is the simplest method whose reward ties with the highest."
)

_ALARM = "The predictions do not hold here; what to do stands below."


def render_field(field: FieldRun) -> str:
    """The page as text, which needs nothing but itself."""
    methods = tallies(field)
    compared = drifts(methods)
    sentences, subject, best = alarms(compared), subject_of(methods), best_of(methods)
    return blocks.page(
        title=f"In the field: {field.base} on {field.device}",
        facts=_facts(field),
        sections=[
            blocks.verdict(
                [blocks.unbroken(sentence) for sentence in field_verdict(field, methods)],
                warn=best is None or best.name != "tree",
                alarms=blocks.alarm_lines([_ALARM] if sentences else []),
            ),
            _tiles(methods, compared), blocks.legend(KINDS), _methods(field, methods), endings_section(methods),
            Markup() if subject is None else _along(field, methods, subject),
            blocks.pair(_parts(methods), _distribution(methods)), drift_section(methods, compared, sentences),
            _notes(field), section("Configuration and provenance", blocks.facts(_provenance(field))),
        ],
        footer="Written by nas field; every number on this page is in field.json.",
    )  # fmt: skip


def _facts(field: FieldRun) -> list[str]:
    counts = {len(run.shots) for run in field.methods}
    shots = f"{max(counts)} inferences a method" if counts else "no inferences"
    return [
        f"{shots}, one every {ms_text(field.every_ms)}" if counts else shots,
        f"cloud {field.cloud}",
        f"link {field.trace} by {field.link}, round trip {ms_text(field.rtt_ms)}",
        "" if field.policy == "switch" else f"driven by {field.policy}",
        f"device played by slowing this machine down: {field.slowdown}" if field.slowdown else "",
        field.machine, f"commit {field.commit}", field.date,
    ]  # fmt: skip


def _tiles(methods: Sequence[Tally], compared: Sequence[Drift]) -> Markup:
    subject = subject_of(methods)
    if subject is None:
        return Markup()
    device = next((one for one in methods if one.name == "device_only" and one is not subject), None)
    alone = [] if device is None else [f"device alone: {cells.ms(ms)}" for ms in (device.mean_ms, device.p95_ms)]
    mean_ms, p95_ms = alone or ("", "")
    hindsight = f"with hindsight {cells.ms(subject.oracle_ms)}"
    off = sum(one.alarming for one in compared)
    return blocks.tiles([
        (f"{subject.title}, mean", cells.ms(subject.mean_ms), "measured", mean_ms),
        (f"{subject.title}, 95 %", cells.ms(subject.p95_ms), "measured", p95_ms),
        ("accuracy of the paths", cells.percent(subject.accuracy), "", "as the bundle says"),
        ("handed over", cells.share(subject.handed_over), "measured", f"{subject.alone or 'none'} went on here"),
        ("over the oracle", cells.signed(subject.over_oracle), "computed", hindsight),
        ("parts mispredicted", f"{off} of {len(compared)}", "", f"by {100 * DRIFT_SHARE:.0f} % and {DRIFT_MS:g} ms"),
    ])  # fmt: skip


def _columns(field: FieldRun, methods: Sequence[Tally]) -> list[Column[Tally]]:
    """Those in which any method has a number."""
    measured, computed = ("", "measured"), ("", "computed")
    late = math.nan if field.deadline_ms is None else 1
    columns = [
        Column[Tally](name="mean", group=measured, pick=lambda m: m.mean_ms, show=cells.ms, better=min),
        Column(name="median", group=measured, pick=lambda m: m.median_ms, show=cells.ms, better=min),
        Column(name="95 % under", group=measured, pick=lambda m: m.p95_ms, show=cells.ms, better=min),
        Column(name="handed over", group=measured, pick=lambda m: m.handed_over, show=cells.share),
        Column(name="late", group=measured, pick=lambda m: late * m.late, show=cells.whole),
        Column(name="images right", group=measured, pick=lambda m: m.right, show=cells.share, better=max),
        Column(name="accuracy", group=("", "bundle's"), pick=lambda m: m.accuracy, show=cells.percent, better=max),
        Column(name="reward", group=("", "mixed"), pick=lambda m: m.reward, show=cells.plain, better=max),
        Column(name="emulated mean", group=("", "simulated"), pick=lambda m: m.emulated_ms, show=cells.ms),
        Column(name="replayed mean", group=computed, pick=lambda m: m.replayed_ms, show=cells.ms),
        Column(name="over the oracle", group=computed, pick=lambda m: m.over_oracle, show=cells.signed, better=min),
    ]
    return [column for column in columns if any(math.isfinite(column.pick(one)) for one in methods)]


def _methods(field: FieldRun, methods: Sequence[Tally]) -> Markup:
    """The table, best reward first."""
    rows = sorted(methods, key=lambda m: m.reward if math.isfinite(m.reward) else -math.inf, reverse=True)
    columns, colour, bound_ms = _columns(field, methods), colours(m.name for m in rows), mean(field.oracle_ms)
    oracle = [cells.ms(bound_ms) if column.name == "mean" else "" for column in columns]
    compared = comparison(
        rows, columns, title=lambda m: m.title, colour=lambda m: colour[m.name],
        chosen=best_of(methods) if len(rows) > 1 else None,
        bounds=[bound("Bound: hindsight oracle", BOUND, oracle)] if rows and math.isfinite(bound_ms) else [],
    )  # fmt: skip
    way = "interleaved" if field.interleaved else "in turns"
    return section(f"Methods, {way} over the trace", compared, note=_NOTE)


def _along(field: FieldRun, methods: Sequence[Tally], subject: Tally) -> Markup:
    note = (
        "Above, the link as the trace says, what the device estimated, and where the tree forks; then the bandwidth "
        "type taken, from orange (slowest) to blue (fastest); in the middle, how long an inference started then took; "
        f"below, the path of {subject.title}, outlined in red where it went on here though the path hands over. "
        f"{trace.HINT} Trace: {field.trace_origin}"
    )
    means = [(one.name, f"{one.title} {ms_text(one.mean_ms)}") for one in methods if one.total_ms.size]
    picture = field_charts.trace_chart(field, methods, subject)
    return figure("Along the trace", picture, _leaf_key(subject), note=note, kind="measured", names=means)


def _leaf_key(subject: Tally) -> Markup:
    texts = {leaf.leaf: f": {leaf.text}" for leaf in subject.run.leaves if leaf.text}
    ends = [shot.nodes[-1] for shot in subject.run.shots if shot.nodes]
    return blocks.colour_key(
        (colour, f"leaf {leaf}{texts.get(leaf, '')}", f"×{ends.count(leaf)}")
        for leaf, colour in field_charts.leaf_colours(subject).items()
    )


def _parts(methods: Sequence[Tally]) -> Markup:
    note = "Mean over all inferences of a method. Wait is what no other part explains."
    picture = field_charts.parts_chart(methods)
    return figure("Where the time went", picture, part_key(PARTS), note=note, kind="measured", left=130)


def _distribution(methods: Sequence[Tally]) -> Markup:
    note = "How many of the inferences took no longer than that. Further left is better; a long tail to the right is a "
    note += "method that a bad link caught out."
    names = [(one.name, one.title) for one in methods if one.total_ms.size]
    return figure("Distribution", field_charts.distribution_chart(methods), note=note, kind="measured", names=names)


def _notes(field: FieldRun) -> Markup:
    played = (
        f"This machine played the device, slowed down: {field.slowdown}."
        if field.slowdown
        else "Nothing slowed this machine down; it was the device as it is."
    )
    link = {
        "namespaces": "The link is two network namespaces joined by the kernel, which shapes it as the trace says.",
        "relay": "The link is a relay on this machine that delays and paces bytes as the trace says.",
    }.get(field.link, f"The link: {field.link}.")
    notes = [
        ("measured", f"Latencies, their parts, and who answered: wall-clock times of this run. {played} {link}"),
        ("bundle's", "Accuracy: of the paths taken, as measured on test images when the tree was searched; the few "
                         "images of this run say little about it."),
        ("simulated", "Emulated mean: the tree's own predictions, played along the trace from the same starts, the "
                      "bandwidth known at every fork."),
        ("computed", "Replayed mean: the same with this run's measured block, server and round-trip times. What is "
                     "left to the measured mean is the estimator, the switch and the link itself."),
        ("computed", "Oracle: for every start the best of all paths of all methods, with measured parts and the true "
                     "trace. Nothing that must decide beforehand reaches it, except by luck."),
        ("mixed", "Reward: eq. 7 with the paper's weights, of the bundle's accuracy and the measured mean latency."),
    ]  # fmt: skip
    tagged = blocks.facts([(blocks.tag(kind), note) for kind, note in notes], wide=False)
    return section("What is measured, emulated and computed", tagged)


def _provenance(field: FieldRun) -> list[tuple[str, str]]:
    shots = ", ".join(f"{run.name} {len(run.shots)}" for run in field.methods)
    return list({
        "base network": field.base, "device": field.device, "slowed down": field.slowdown or "no",
        "cloud": field.cloud, "link": field.link, "trace": f"{field.trace}: {field.trace_origin}",
        "round trip": ms_text(field.rtt_ms), "edges": _mbps(field.edges_mbps),
        "bandwidth types": _mbps(field.representative_mbps), "an inference every": ms_text(field.every_ms),
        "deadline": "none" if field.deadline_ms is None else ms_text(field.deadline_ms), "inferences": shots,
        "bundles": ", ".join(f"{run.name} {run.bundle}" for run in field.methods), "machine": field.machine,
        "policy": field.policy, "commit": field.commit, "date": field.date,
    }.items())  # fmt: skip


def _mbps(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.3g}" for value in values if usable(value)) + " Mbit/s" if values else "none"
