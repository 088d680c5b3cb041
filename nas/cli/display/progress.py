"""Stages of a search at the terminal, with the time each has left."""

import contextlib
import sys
from collections.abc import Iterator

from nas.cli.display.log import logged
from nas.jobs.progress import StageProgress, silent_stages

TITLES = {
    "base": "base network",
    "library": "variant library",
    "calibration": "predictor",
    "search": "search",
    "finetune": "fine-tuning",
}


@contextlib.contextmanager
def stages(*, quiet: bool) -> Iterator[StageProgress]:
    """A callback (stage, done, total, text): a bar per stage at a terminal, else lines; both on standard error."""
    if quiet:
        yield silent_stages
        return
    if not sys.stderr.isatty():
        with logged(TITLES, lambda line: print(f"nas: {line}", file=sys.stderr, flush=True)) as log:
            yield log
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.fields[title]:16}"), BarColumn(24), MofNCompleteColumn(), TimeElapsedColumn(),
        TextColumn("left"), TimeRemainingColumn(), TextColumn("{task.description}"),
    )  # fmt: skip
    bars = Progress(*columns, console=Console(stderr=True))
    tasks: dict[str, int] = {}

    def progress(stage: str, done: int, total: int, text: str) -> None:
        if stage not in tasks:
            bars.start()  # not before: an error in the input is one line and nothing else
            tasks[stage] = bars.add_task(text, total=total, title=TITLES.get(stage, stage))
        bars.update(tasks[stage], completed=done, total=total, description=text)  # type: ignore[arg-type]

    try:
        yield progress
    finally:
        if tasks:
            bars.stop()
