"""`nas show`: look at a finished run again."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from modeltree.render import render_dot, render_text
from modeltree.tree import ModelTree


def show(
    run: Annotated[Path, typer.Argument(help="A run directory")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON")] = False,
    dot: Annotated[bool, typer.Option("--dot", help="Print the tree for Graphviz")] = False,
) -> None:
    """Show the tree of a run, what each method is worth, and the verdict."""
    from nas.run import read_run

    summary, tree = read_run(run)
    if as_json:
        print(json.dumps(summary))
    elif dot:
        print(render_dot(tree))
    else:
        print_run(run, summary, tree)


def print_run(folder: Path, summary: dict[str, Any], tree: ModelTree) -> None:
    """The tree, the comparison and the verdict at the terminal."""
    from rich.console import Console

    from nas.report.verdict import verdict

    console = Console()
    print(render_text(tree))
    console.print(_comparison(summary))
    for sentence in verdict(summary, tree):
        print(f"* {sentence}")
    quality, exact, tuned = summary["predictor"], summary["exact"], summary["finetuning"]
    if exact and "found_percent" in exact:
        print(f"* Search: {exact['found_percent']:.2f} % of the exact optimum's reward (as predicted).")
    if quality:
        print(
            f"* Predictor, cross-validated on {len(quality['points'])} compositions: "
            f"rank correlation {quality['rank_correlation']:.2f}, mean error {quality['mean_error']:.2f} points."
        )
    if tuned:
        print(
            f"* Fine-tuning: mean over the leaves {tuned['before']:.2f} -> {tuned['after']:.2f} % on search images "
            f"(base {tuned['base']:.2f} %); {tuned['test']:.2f} % on test images (base {tuned['base_test']:.2f} %)."
        )
    print(f"\n{folder / 'report.html'}")


def _comparison(summary: dict[str, Any]) -> Any:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD)
    for title in ("method", "reward", "ms", "accuracy %", "ms on trace", "evaluated", "s"):
        table.add_column(title, justify="left" if title == "method" else "right", no_wrap=True)
    for row in summary["methods"]:
        along = row["along_trace"]
        mark = " " if row["accuracy_origin"] == "measured" else "*"
        table.add_row(
            row["method"], f"{row['reward']:.2f}", f"{row['latency_ms']:.2f}", f"{row['accuracy']:.2f}{mark}",
            f"{along['latency_ms']:.2f}" if along else "", str(row["evaluations"]), f"{row['seconds']:.1f}",
        )  # fmt: skip
    if exact := summary["exact"]:
        table.add_row(
            "exact", f"{exact['reward']:.2f}", f"{exact['latency_ms']:.2f}", f"{exact['accuracy']:.2f}*",
            "", "", f"{exact['seconds']:.1f}",
        )  # fmt: skip
    table.caption = "ms: predicted; ms on trace: simulated; * predicted accuracy"
    return table
