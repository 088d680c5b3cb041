"""The page of `benchmarks/placement.py`: a chart a sweep and network, curves of training, and the paper's claims."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import altair as alt
from markupsafe import Markup

from modeltree.files import write_text
from nas.report.pieces import blocks, charts
from nas.report.pieces.blocks import section
from nas.report.pieces.colours import key
from nas.report.pieces.table import table

Results = Mapping[str, Sequence[Mapping[str, Any]]]
"""Per agent, what each of its seeds came to."""

CLAIMS = {"total_s": 4.76, "edge_s": 10.04, "local_s": 8.03}
"""By how many percent less delay, the averages of [Li 2023] for multi-task A3C."""

_NOTE = "All delays are computed from the model of the world, none is timed. A point is the mean of its seeds."


def write_page(path: Path, *, sweeps: Mapping[str, Mapping[float, Results]], curves: Mapping[str, Results]) -> None:
    """Write the page. sweeps : by title, what came out at each value. curves : by network, in the default world."""
    parts = [section("Against the paper", _claims(curves), note=_NOTE)]
    parts += [_curves(network, results) for network, results in curves.items()]
    parts += [_sweep(title, points) for title, points in sweeps.items() if len(points) > 1]
    text = blocks.page(
        title="Blocks over edge servers", facts=[], sections=parts, footer="benchmarks/placement.py page"
    )
    write_text(path, text)


def mean(results: Sequence[Mapping[str, Any]], name: str) -> float:
    """Over the seeds."""
    return sum(float(one[name]) for one in results) / len(results)


def _claims(curves: Mapping[str, Results]) -> Markup:
    head = ["network, against", "seeds", "total delay", "paper", "on servers", "paper", "on the device", "paper",
            "distance to the best"]  # fmt: skip
    rows = []
    for network, results in curves.items():
        ours = results.get("multitask")
        if not ours:
            continue
        rows.append([f"{network}, multi-task A3C itself", str(len(ours)), *[""] * 6, f"{mean(ours, 'gap'):.2f} %"])
        for agent, theirs in results.items():
            if agent != "multitask":
                less = [_less(mean(ours, name), mean(theirs, name)) for name in CLAIMS]
                paired = [
                    text for one, claim in zip(less, CLAIMS.values(), strict=True) for text in (one, f"-{claim} %")
                ]
                rows.append([f"{network}, {agent}", str(len(theirs)), *paired, f"{mean(theirs, 'gap'):.2f} %"])
    return table(head, rows)


def _less(ours: float, theirs: float) -> str:
    return f"{100 * (ours / theirs - 1):+.2f} %" if theirs else "-"


def _curves(network: str, results: Results) -> Markup:
    rows = [
        {"name": key(agent), "title": agent, "x": float(episode), "y": value}
        for agent, seeds in results.items()
        if seeds[0]["curve"]
        for episode, value in charts.thin(list(enumerate(seeds[0]["curve"])), 300)
    ]
    names = [agent for agent, seeds in results.items() if seeds[0]["curve"]]
    return _figure(f"Training, {network}, first seed", rows, names, "episode", "mean reward of a slot")


def _sweep(title: str, points: Mapping[float, Results]) -> Markup:
    names = list(dict.fromkeys(agent for results in points.values() for agent in results))
    pick: dict[str, Callable[[Any], float]] = {
        what: (lambda one, name=name: mean(one, name))
        for name, what in (("total_s", "total delay in s"), ("edge_s", "on servers in s"),
                           ("local_s", "on the device in s"), ("energy_j", "energy in J"), ("gap", "% from the best"))
    }  # fmt: skip
    drawn = []
    for what, value in pick.items():
        rows = [
            {"name": key(agent), "title": agent, "x": float(at), "y": value(results[agent])}
            for at, results in points.items()
            for agent in names
            if agent in results
        ]
        drawn.append(_figure(f"{title}: {what}", rows, names, title, what))
    return blocks.pair(*drawn)


def _figure(title: str, rows: list[dict[str, Any]], names: Sequence[str], x_title: str, y_title: str) -> Markup:
    if not rows:
        return Markup()
    tooltip = charts.tips({"title:N": "agent", "x:Q": x_title, "y:Q": y_title})
    x = alt.X("x:Q").scale(zero=False, nice=False).title(x_title)
    y = alt.Y("y:Q").scale(zero=False).title(y_title)
    picture = charts.sized(charts.lines(rows, x, y, tooltip, names, bold="multitask"))
    return charts.figure(title, picture, names=[(name, name) for name in names])
