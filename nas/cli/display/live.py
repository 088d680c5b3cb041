"""`nas run --live`: a running session at the terminal, drawn between inferences.

No thread draws: what is measured is not disturbed, and a rate of inferences beyond `UPDATES_PER_S` costs no more.
"""

import math
import statistics
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any

from modeltree.tree import BandwidthFork, Fork, ModelTree, Node
from modeltree.tree.render import block_text, bytes_text, fork_text, ms_text, range_text
from nas.cli.display.answers import shown

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from runtime.result import Result
    from runtime.session import Session

UPDATES_PER_S = 8
HISTORY, LAST = 60, 1000
"""Estimates in the sparkline; inferences that median and 95 % are taken over."""

_BAR, _SIBLINGS = 44, 6
_PARTS = (("device", "dark_orange"), ("encode", "yellow"), ("transfer", "medium_purple1"), ("cloud", "dark_cyan"),
          ("wait", "grey50"))  # fmt: skip
_TYPE_COLOURS = ("dark_orange", "yellow3", "green3", "dodger_blue1")


@dataclass(kw_only=True)
class Answers:
    """What a session has answered so far."""

    count: int = 0
    late: int = 0
    by: Counter[str] = field(default_factory=Counter)
    ends: Counter[int] = field(default_factory=Counter)
    total_ms: deque[float] = field(default_factory=lambda: deque(maxlen=LAST))
    mbps: deque[float] = field(default_factory=lambda: deque(maxlen=HISTORY))
    last: "Result | None" = None
    image: str = ""

    def add(self, result: "Result", image: str) -> None:
        """One more."""
        self.count += 1
        self.late += not result.met
        self.by[result.answered_by] += 1
        self.ends[result.nodes[-1] if result.nodes else -1] += 1
        self.total_ms.append(result.parts.total)
        self.mbps.append(result.mbps[-1] if result.mbps else math.nan)
        self.last, self.image = result, image

    def summary(self) -> str:
        """One line; of the last `LAST` where it is about times."""
        if not self.count:
            return "no image classified"
        median_ms, p95_ms = quantiles(self.total_ms)
        images = "1 image" if self.count == 1 else f"{self.count} images"
        recent = f" (of the last {LAST})" if self.count > LAST else ""
        return (
            f"{images} classified: median {ms_text(median_ms)}, 95 % under {ms_text(p95_ms)}{recent}; "
            f"cloud {self.by['cloud']}, device {self.by['device']}, late {self.late}"
        )


def quantiles(values: "deque[float]") -> tuple[float, float]:
    """(median, 95 %); the latter is the value that 95 % do not exceed."""
    ordered = sorted(values)
    return statistics.median(ordered), ordered[math.ceil(0.95 * len(ordered)) - 1]


class LiveView:
    """A context manager; `show` after each inference and while waiting: it draws only when the last is old enough."""

    def __init__(
        self, session: "Session", answers: Answers, *, console: "Console | None" = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        from rich.console import Console
        from rich.live import Live

        self.session, self.answers, self.clock = session, answers, clock
        self._console = console or Console()
        self._live = Live(console=self._console, auto_refresh=False, vertical_overflow="crop")
        self._drawn_s = -math.inf

    def show(self, *, now: bool = False) -> bool:
        """Draw if it is time, or `now`; whether it did."""
        if self.answers.last is None or (not now and self.clock() - self._drawn_s < 1 / UPDATES_PER_S):
            return False
        self._live.update(
            picture(self.session, self.answers, ascii_only=self._console.options.ascii_only), refresh=True
        )
        self._drawn_s = self.clock()
        return True

    def __enter__(self) -> "LiveView":
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not isinstance(error, Exception):  # the end, or Ctrl-C: leave the last state on the screen
            self.show(now=True)
        self._live.stop()


def picture(session: "Session", answers: Answers, *, ascii_only: bool = False) -> Any:
    """What rich draws: the link, the tree, the last answer."""
    from rich.box import ROUNDED
    from rich.console import Group
    from rich.panel import Panel
    from rich.text import Text

    assert answers.last is not None
    tree = session.device.manifest.tree
    sections = (
        ("link", link_lines(session, answers, ascii_only=ascii_only)),
        ("path", tree_lines(tree, answers, ascii_only=ascii_only)),
        ("last answer", answer_lines(tree, answers, ascii_only=ascii_only)),
    )
    return Group(
        *(
            Panel(
                Text("\n", no_wrap=True, overflow="ellipsis").join(lines),
                title=title,
                title_align="left",
                box=ROUNDED,
                border_style="grey50",
            )
            for title, lines in sections
        )
    )


def link_lines(session: "Session", answers: Answers, *, ascii_only: bool) -> "list[Text]":
    """The estimate, its history, the types, the round trip and the server."""
    from runtime.remote.link_monitor import LinkWatch

    assert answers.last is not None
    tree, link = session.device.manifest.tree, session.link
    estimate = link.estimate() if isinstance(link, LinkWatch) else None
    if estimate is None:
        said = "not known yet: the slowest type is assumed"
    else:
        said = (
            f"{estimate.mbps:.3g} Mbit/s ({estimate.low_mbps:.3g} to {estimate.high_mbps:.3g}), "
            f"{estimate.age_s:.1f} s old, confidence {100 * estimate.confidence:.0f} %"
        )
    lines = [_row("bandwidth", said), _row("", sparkline(answers.mbps, tree, ascii_only=ascii_only))]
    now = None if estimate is None else tree.types.match(estimate.mbps)
    lines.append(_row("type", _types(tree, answers.last.types[-1] if answers.last.types else None, now)))
    if isinstance(link, LinkWatch):
        lines.append(_row("round trip", ms_text(link.rtt_ms)))
    lines.append(_row("server", _server(session)))
    return lines


def tree_lines(tree: ModelTree, answers: Answers, *, ascii_only: bool) -> "list[Text]":
    """The forks of the path just taken, all ways of each, the taken one marked."""
    assert answers.last is not None
    lines: list[Text] = []
    _add_fork(lines, tree, answers, tree.roots, answers.last.nodes, "* -" if ascii_only else "● ○")
    return lines


def _add_fork(
    lines: "list[Text]", tree: ModelTree, answers: Answers, options: tuple[int, ...], taken: tuple[int, ...], marks: str
) -> None:  # fmt: skip
    """The ways of a fork, and below the one taken the fork that came next."""
    from rich.text import Text

    indent = "   " * (tree.nodes[options[0]].level if options else 0)
    shown = options if len(options) <= _SIBLINGS else tuple(option for option in options if option in taken)
    for option in shown:
        node, chosen = tree.nodes[option], option in taken
        text = f"{indent}{marks[0] if chosen else marks[-1]} {_fork(tree, node.fork)}: {_does(tree, node)}"
        if answers.ends[option]:
            text += f"  x{answers.ends[option]}"
        lines.append(Text(text, style=f"bold {_colour(tree, node)}" if chosen else "grey50"))
        if chosen:
            _add_fork(lines, tree, answers, node.children, taken, marks)
    if len(shown) < len(options):
        lines.append(Text(f"{indent}  {len(options) - len(shown)} more", style="grey50"))


def answer_lines(tree: ModelTree, answers: Answers, *, ascii_only: bool) -> "list[Text]":
    """The class, who answered and why, the parts of its latency, and all answers so far."""
    from rich.text import Text

    result = answers.last
    assert result is not None
    late = "" if result.met else ", too late"
    answer = Text().append(_printable(shown(tree, result)), style="bold")
    answer.append(f"  by the {result.answered_by}{late}", style="" if result.met else "red")
    answer.append(f"  {_printable(answers.image)}", style="grey50")
    parts = [(name, getattr(result.parts, name), colour) for name, colour in _PARTS]
    legend = Text()
    for (name, ms, colour), sign in zip(parts, _signs(ascii_only), strict=True):
        if ms >= 0.005:
            legend.append(f"{sign} ", style=colour).append(f"{name} {ms:.2f}  ")
    median_ms, p95_ms = quantiles(answers.total_ms)
    return [
        _row("class", answer), _row("why", _printable(result.why)),
        _row("latency", _bar(parts, ascii_only=ascii_only).append(f"  {ms_text(result.parts.total)}", style="bold")),
        _row("", legend),
        _row("so far", f"median {ms_text(median_ms)}, 95 % under {ms_text(p95_ms)}; {answers.count} images: cloud "
                       f"{answers.by['cloud']}, device {answers.by['device']}, late {answers.late}"),
    ]  # fmt: skip


def sparkline(values: "deque[float]", tree: ModelTree, *, ascii_only: bool) -> "Text":
    """A column an estimate, as a share of the highest, coloured by bandwidth type; a blank where nothing was known."""
    from rich.text import Text

    steps = "_.-=+*#@" if ascii_only else "▁▂▃▄▅▆▇█"
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return Text("no estimate yet", style="grey50")
    high, line = max(*finite, 1e-9), Text()
    for value in values:
        if not math.isfinite(value):
            line.append(" ")
            continue
        step = steps[min(len(steps) - 1, int(len(steps) * value / high))]
        line.append(step, style=_type_colour(tree.types.match(value), tree.types.count))
    return line.append(f"  of {high:.3g} Mbit/s", style="grey50")


def _types(tree: ModelTree, held: int | None, now: int | None) -> "Text":
    """All types with their bandwidths, the one that was taken last marked."""
    from rich.text import Text

    count, text = tree.types.count, Text()
    for kind in range(count) if count <= _SIBLINGS else ([] if held is None else [held]):
        style = f"bold reverse {_type_colour(kind, count)}" if kind == held else "grey50"
        text.append(f" {kind}: {range_text(tree, (kind,))} ", style=style).append(" ")
    if now is not None and held is not None and now != held:
        text.append(f" the estimate is of type {now}", style="yellow")
    return text


def _server(session: "Session") -> "Text":
    from rich.text import Text

    cloud = session.cloud
    if cloud is None:
        return Text("none was named", style="grey50")
    why, failures = cloud.why_not(), cloud.breaker.failures
    state = Text("may be asked", style="green") if why is None else Text(_printable(why), style="red")
    state.append(f"; {failures} failures in a row", style="yellow" if failures else "grey50")
    return state.append(f", {cloud.calls} calls under way", style="grey50")


def _bar(parts: list[tuple[str, float, str]], *, ascii_only: bool) -> "Text":
    """The parts side by side; every sign is a share of their sum."""
    from rich.text import Text

    total, bar, done, filled = sum(ms for _, ms, _ in parts), Text(), 0.0, 0
    for (_, ms, colour), sign in zip(parts, _signs(ascii_only), strict=True):
        done += ms
        until = round(_BAR * done / total) if total > 0 else 0
        bar.append(sign * (until - filled), style=colour)
        filled = until
    return bar


def _signs(ascii_only: bool) -> str:
    """One for each part, so that a terminal without colours tells them apart too."""
    return "de>c." if ascii_only else "█▓▒░·"


def _fork(tree: ModelTree, fork: Fork) -> str:
    match fork:
        case BandwidthFork(types=types) if types:
            return range_text(tree, types)
        case _:
            return fork_text(tree, fork)


def _does(tree: ModelTree, node: Node) -> str:
    said = [f"{block_text(node)}, {ms_text(node.device_ms)}"] if node.block else []
    if node.handover is not None:
        what = "image" if node.handover.place == 0 else f"place {node.handover.place}"
        said.append(f"{what} to the cloud, {bytes_text(node.handover.bytes)}")
    elif node.leaf is not None:
        said.append("ends here")
    return ", ".join(said) or f"block {node.level + 1}"


def _colour(tree: ModelTree, node: Node) -> str:
    if len(node.fork.types) in (0, tree.types.count):
        return "default"
    return _type_colour(node.fork.types[len(node.fork.types) // 2], tree.types.count)


def _type_colour(kind: int, count: int) -> str:
    """Orange is slowest, blue fastest, as in the reports."""
    return _TYPE_COLOURS[round(kind * (len(_TYPE_COLOURS) - 1) / (count - 1))] if count > 1 else "default"


def _row(name: str, content: "str | Text") -> "Text":
    from rich.text import Text

    line = Text().append(f"{name:<11}", style="grey50")
    return line.append_text(content) if isinstance(content, Text) else line.append(content)


def _printable(text: str) -> str:
    """Text from a bundle or a server, without what would steer the terminal."""
    return "".join(sign if sign.isprintable() else " " for sign in text)
