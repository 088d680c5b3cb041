"""The page of `nas policy eval`: what every policy chose, and what came out, over a sweep or along a link."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from modeltree.files import write_text
from modeltree.offloading.decisions import DecisionTable
from nas.decisions.offloading.compare import Outcome, Row, ranges
from nas.report.pieces import cells
from nas.report.pieces.style import CSS
from nas.report.pieces.svg import Axis, axis, escape, frame, polyline, spread, svg, text, wide

_COLOURS = {"exact": "m-tree", "greedy": "m-surgery", "on_device": "m-device_only", "cloud_only": "m-cloud_jpeg"}
_OTHERS = ("m-branch", "m-random", "m-egreedy", "m-cloud_raw")
_NOTE = (
    "Latency and energy are predicted from profiles, accuracy is what the tree holds for each leaf; on a link, "
    "transfers are simulated exactly. The reward is 0 to 1. Decision times were measured where this page was written."
)
_LINK = {"bandwidth": "bandwidth"}
_WIDTH, _HEIGHT, _RIGHT = 560, 300, 430

Drawn = Callable[[Outcome], np.ndarray]


def write_page(
    path: Path, *, title: str, facts: Sequence[str], table: DecisionTable, rows: Sequence[Row],
    outcomes: Mapping[str, Outcome], times_s: np.ndarray | None,
) -> None:  # fmt: skip
    """Write the page, whole or not at all; it needs nothing but itself.

    times_s : (inferences,), when each began on the link; None for a sweep, drawn over the bandwidth.

    Raises
    ------
    DataError : the file cannot be written.
    """
    colours = _colours(outcomes)
    sections = [
        f"<header><h1>{escape(title)}</h1><p>{escape(' · '.join(facts))}</p></header>",
        f'<section><h2>What came out</h2><p class="note">{_NOTE}</p>{_table(rows, colours)}</section>',
        _sweep(table, outcomes, colours) if times_s is None else _link(table, outcomes, colours, times_s),
    ]
    body = "\n".join(sections)
    write_text(path, (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{CSS}</style>\n</head>\n<body>\n<main>\n{body}\n"
        "<footer>Written by nas policy eval.</footer>\n</main>\n</body>\n</html>\n"
    ))  # fmt: skip


def lines_chart(
    xs: np.ndarray, lines: Mapping[str, np.ndarray], colours: Mapping[str, str], *, x_label: str, y_label: str
) -> str:
    """One stepped line a policy; values that are not finite are left out."""
    finite = np.concatenate([values[np.isfinite(values)] for values in lines.values()])
    if not finite.size or len(xs) < 2:
        return ""
    log = wide(finite.tolist())
    x = axis(xs.tolist(), 58, _RIGHT, pad=0.0)
    y = axis(finite.tolist(), _HEIGHT - 46, 30, log=log)
    parts = frame(x, y, x_label, y_label + (" (log scale)" if log else ""))
    tags = []
    for name, values in reversed(list(lines.items())):
        pixels = _pixels(x, y, xs, values)
        if pixels:
            thin = "" if name == "exact" else " thin"
            parts.append(polyline(pixels, f"line{thin} {colours[name]}", stepped=True))
            tags.append((name, pixels[-1][1]))
    for (name, _), py in zip(tags, spread([py for _, py in tags], 15, 34, y.start), strict=True):
        parts.append(text(_RIGHT + 8, py + 4, name, f"tag {colours[name]}"))
    return svg(_WIDTH, _HEIGHT, parts, f"{y_label} against {x_label}")


def _pixels(x: Axis, y: Axis, xs: np.ndarray, values: np.ndarray) -> list[tuple[float, float]]:
    return [(x(at), y(value)) for at, value in zip(xs.tolist(), values.tolist()) if np.isfinite(value)]


def _sweep(table: DecisionTable, outcomes: Mapping[str, Outcome], colours: Mapping[str, str]) -> str:
    first = next(iter(outcomes.values()))

    def chart(y_label: str, pick: Drawn) -> str:
        lines = {name: pick(seen) for name, seen in outcomes.items()}
        return _figure(lines_chart(first.mbps, lines, colours, x_label="bandwidth in Mbit/s", y_label=y_label))

    picked: dict[str, Drawn] = {
        "latency in ms, predicted": lambda seen: seen.latency_ms,
        "reward": lambda seen: seen.reward,
        "accuracy in %": lambda seen: seen.accuracy,
        "energy in mJ, predicted": lambda seen: seen.energy_mj,
        "exit": lambda seen: table.exit[seen.action],
        "cut, layers on the device": lambda seen: table.cut[seen.action],
        "bits of what is sent": lambda seen: np.where(table.sends, table.bits, np.nan)[seen.action],
    }
    drawn = "".join(f"<section>{chart(label, pick)}</section>" for label, pick in picked.items())
    chosen = "".join(_choices(name, ranges(table, seen)) for name, seen in outcomes.items())
    return f'<div class="pair">{drawn}</div><section><h2>What each chose</h2>{chosen}</section>'


def _choices(name: str, found: Sequence[tuple[float, float, str]]) -> str:
    body = "".join(
        f'<tr><td>{low:.4g} to {high:.4g} Mbit/s</td><td class="text">{escape(what)}</td></tr>'
        for low, high, what in found
    )
    return f"<details><summary>{escape(name)}</summary><table><tbody>{body}</tbody></table></details>"


def _link(
    table: DecisionTable, outcomes: Mapping[str, Outcome], colours: Mapping[str, str], times_s: np.ndarray
) -> str:
    first = next(iter(outcomes.values()))

    def chart(y_label: str, lines: Mapping[str, np.ndarray]) -> str:
        return _figure(lines_chart(times_s, lines, {**colours, **_LINK}, x_label="time in s", y_label=y_label))

    drawn = [
        chart("bandwidth in Mbit/s", {"bandwidth": first.mbps}),
        chart("latency in ms, simulated", {name: seen.latency_ms for name, seen in outcomes.items()}),
        chart("energy spent in mJ, simulated", {name: np.cumsum(seen.energy_mj) for name, seen in outcomes.items()}),
        chart("exit", {name: table.exit[seen.action] for name, seen in outcomes.items()}),
    ]
    shares = "".join(_shares(table, name, seen) for name, seen in outcomes.items())
    charts = "".join(f"<section>{one}</section>" for one in drawn)
    return f'<div class="pair">{charts}</div><section><h2>What each chose</h2>{shares}</section>'


def _shares(table: DecisionTable, name: str, seen: Outcome) -> str:
    actions, counts = np.unique(seen.action, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    body = "".join(
        f"<tr><td>{100 * counts[i] / len(seen.action):.1f} %</td>"
        f'<td class="text">{escape(table.name(int(actions[i])))}</td></tr>'
        for i in order
    )
    return f"<details><summary>{escape(name)}</summary><table><tbody>{body}</tbody></table></details>"


def _table(rows: Sequence[Row], colours: Mapping[str, str]) -> str:
    titles = ["policy", "reward", "of the exact", "mean latency", "95 % under", "accuracy", "energy", "energy in all"]
    titles += ["answered", "transfers given up", "decision"]
    head = "".join(f"<th>{title}</th>" for title in titles)
    body = ""
    for row in rows:
        shown = [
            f"{row.reward:.4f}", f"{100 * row.share:.2f} %", cells.ms(row.latency_ms), cells.ms(row.p95_latency_ms),
            cells.percent(row.accuracy), f"{row.energy_mj:.1f} mJ", f"{row.spent_mj:.0f} mJ",
            f"{100 * row.answered:.1f} %", f"{100 * row.gave_up:.1f} %", f"{row.decision_us:.1f} µs",
        ]  # fmt: skip
        swatch = f'<span class="swatch {colours[row.name]}"></span>'
        body += f"<tr><td>{swatch}{escape(row.name)}</td>{''.join(f'<td>{cell}</td>' for cell in shown)}</tr>"
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _colours(outcomes: Mapping[str, Outcome]) -> dict[str, str]:
    others = [name for name in outcomes if name not in _COLOURS]
    return {name: _COLOURS.get(name) or _OTHERS[others.index(name) % len(_OTHERS)] for name in outcomes}


def _figure(drawing: str) -> str:
    return f"<figure>{drawing}</figure>"
