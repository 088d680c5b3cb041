"""`nas show`: look at a finished run, or a bundle, again."""

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modeltree.errors import ConfigError

if TYPE_CHECKING:
    from modeltree.manifest import FileEntry, LibraryEntry, Manifest
    from modeltree.tree import ModelTree


def show(
    folder: Annotated[Path, typer.Argument(metavar="RUN|BUNDLE", help="A run directory or a bundle")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary, or the manifest, as JSON")] = False,
    dot: Annotated[bool, typer.Option("--dot", help="Print the tree for Graphviz")] = False,
    actions: Annotated[
        bool, typer.Option("--actions", help="Print what every compression of a run saves by itself")
    ] = False,
    verify: Annotated[bool, typer.Option("--verify", help="Check every file of a bundle; status 2 if one is off")] = (
        False
    ),
) -> None:
    """Show the tree of a run, what each method is worth, and the verdict; or the tree of a bundle and its libraries."""
    from runtime.execution.bundle import is_bundle

    if is_bundle(folder):
        _show_bundle(folder, as_json=as_json, dot=dot, verify=verify)
        return
    if verify:
        raise ConfigError(f"{folder} is not a bundle: --verify checks what nas compile wrote")
    from nas.results.run_directory import read_run

    summary, tree = read_run(folder)
    if as_json:
        print(json.dumps(summary))
    elif dot:
        from modeltree.tree.render import render_dot

        print(render_dot(tree))
    elif actions:
        print_savings(summary)
    else:
        print_run(folder, summary, tree)


def _show_bundle(folder: Path, *, as_json: bool, dot: bool, verify: bool) -> None:
    from modeltree.manifest import encode_manifest
    from modeltree.tree.render import render_dot, render_text
    from runtime.execution.bundle import Bundle

    bundle = Bundle.open(folder)
    problems = bundle.problems() if verify else []
    if problems:
        for problem in problems:
            print(f"nas: {problem}", file=sys.stderr)
        raise typer.Exit(2)
    if as_json:
        print(encode_manifest(bundle.manifest).decode(), end="")
    elif dot:
        print(render_dot(bundle.manifest.tree))
    else:
        print(render_text(bundle.manifest.tree))
        print_libraries(folder, bundle.manifest)
        if verify:
            print(f"All {len(list(bundle.manifest.files()))} files are as the manifest says.")


def print_libraries(folder: Path, manifest: "Manifest") -> None:
    """Every compiled block of a bundle at the terminal, and what the bundle weighs."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD)
    texts = ("block", "what", "in", "out", "target", "weights")
    for title in (*texts, "batch", "MMACs", "kB", "error vs torch"):
        table.add_column(title, justify="left" if title in texts else "right", no_wrap=True)
    for name, what in _titles(manifest.tree).items():
        block = manifest.blocks[name]
        for one in block.libraries:
            table.add_row(
                name[:8], what, _shape(block.in_shape), _shape(block.out_shape), one.target,
                one.number_format or one.variant, str(one.batch), f"{one.macs / 1e6:.2f}", f"{one.bytes / 1e3:.0f}",
                _checked(one),
            )  # fmt: skip
    Console(width=None if sys.stdout.isatty() else 200).print(table)
    for name, variant in manifest.variant_accuracy.items():
        print(f"weights {name}: {variant.accuracy:.2f} % of {variant.images} images ({variant.origin})")
    for name in manifest.targets:
        print(f"for {name}: {_weight(manifest.files_of(name))}")
    print(f"{folder}: {_weight(manifest.files())}")


def _checked(library: "LibraryEntry") -> str:
    """What was compared with torch: the library itself, its twin for this machine, or nothing."""
    if library.max_abs_error is not None:
        return f"{library.max_abs_error:.1e}"
    return "not run" if library.vouched_error is None else f"{library.vouched_error:.1e} vouched"


def _titles(tree: "ModelTree") -> dict[str, str]:
    """What each block is, by hash, in the order of the tree; the rests last."""
    from modeltree.tree.render import block_text

    device: dict[str, str] = {}
    rests: dict[str, str] = {}
    for node in tree.nodes:
        if node.block:
            device.setdefault(node.block, block_text(node))
        if node.handover is not None:
            rests.setdefault(node.handover.block, f"rest from place {node.handover.place}")
    return device | {name: f"{device[name]}, {what}" if name in device else what for name, what in rests.items()}


def _weight(entries: "Iterable[FileEntry]") -> str:
    sizes = [entry.bytes for entry in entries]
    return f"{len(sizes)} files, {sum(sizes) / 1e6:.2f} MB"


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def print_run(folder: Path, summary: dict[str, Any], tree: "ModelTree") -> None:
    """The tree, the comparison and the verdict at the terminal."""
    from rich.console import Console

    from nas.results.verdict import verdict

    console = Console()
    from modeltree.tree.render import render_text

    print(render_text(tree))
    console.print(_comparison(summary))
    if summary.get("link_states"):
        console.print(_link_states(summary["link_states"]))
        for leaf, path in {one["leaf"]: one["path"] for one in summary["link_states"]}.items():
            print(f"  leaf {leaf}: {path}")
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


def print_savings(summary: dict[str, Any]) -> None:
    """Every compression that the library holds, and what it saves on the device by itself."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD)
    texts = ("layer", "technique", "offered")
    for title in ("layer", "technique", "replaces", "ms now", "saves ms", "measured", "points lost", "offered"):
        table.add_column(title, justify="left" if title in texts else "right", no_wrap=True)
    for one in sorted(summary.get("savings") or [], key=lambda one: -one["saves_ms"]):
        table.add_row(
            one["layer"], one["choice"], str(one["covers"]), f"{one['base_ms']:.3f}", f"{one['saves_ms']:.3f}",
            f"{here[0] - here[1]:.3f}" if (here := one.get("measured_ms")) else "", f"{one['drop']:.2f}",
            one["why_not"] or "yes",
        )  # fmt: skip
    device = summary["scenario"]["device"]
    table.caption = (
        f"ms: predicted by the profile of {device}; measured: saved on the machine that searched; points: alone"
    )
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def _link_states(states: list[dict[str, Any]]) -> Any:
    """Which leaf serves which state of the link, and what each method takes there: a column a state."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD)
    table.add_column("ms while the link is", no_wrap=True)
    for one in states:
        table.add_column(one["range"], justify="right")
    for name in states[0]["latency_ms"]:
        table.add_row(name, *(f"{one['latency_ms'][name]:.2f}" for one in states))
    table.add_row("the tree's leaf", *(str(one["leaf"]) for one in states))
    table.add_row("round trip", *(f"{one['rtt_ms']:.2f}" for one in states))
    table.caption = "predicted; unforked: the best path that is the same in all states"
    return table


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
