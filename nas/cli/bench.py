"""`nas bench`: our libraries beside other engines, paired, in one run."""

from pathlib import Path
from typing import Annotated

import typer


def bench(
    base: Annotated[
        list[str] | None,
        typer.Option(help="A network, file.py:factory, torchvision:NAME or timm:NAME; may be given again"),
    ] = None,
    blocks: Annotated[Path | None, typer.Option(help="A run directory: measure each of its blocks instead")] = None,
    threads: Annotated[list[int] | None, typer.Option(min=1, help="May be given again. 1 and 2 unless said")] = None,
    weights: Annotated[
        list[str] | None,
        typer.Option(help="Of our libraries: f32, bf16 or int8; again for more. f32 unless said; with --formats all"),
    ] = None,
    formats: Annotated[
        bool, typer.Option("--formats", help="What each network or block costs in each number format, instead")
    ] = False,
    kernels: Annotated[
        bool, typer.Option("--kernels", help="The time of each kernel of our libraries, instead")
    ] = False,
    target: Annotated[
        list[str] | None, typer.Option(help="For --formats, as in nas compile; reckoned where it does not run here")
    ] = None,
    peer: Annotated[
        list[str] | None,
        typer.Option(help="ort, openvino, openvino-bf16, openvino-int8, torch, tvm-default or none. All unless said"),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Turns that every engine gets on every network")] = 15,
    burst_ms: Annotated[float, typer.Option(min=1.0, help="How long a turn is timed")] = 150.0,
    image_size: Annotated[int, typer.Option(help="Height and width in pixels, for --base")] = 32,
    tune: Annotated[bool, typer.Option(help="Time our tiles first; else they are reckoned")] = True,
    seed: Annotated[int, typer.Option(min=0, help="Of weights and of the order of turns")] = 0,
    out: Annotated[Path | None, typer.Option(help="JSON file for every round")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for --formats and --kernels")] = False,
    cache: Annotated[Path | None, typer.Option(help="Tuned tiles; ~/.cache/nas/compiled unless said")] = None,
) -> None:  # fmt: skip
    """Measure whole networks, or the blocks of a run, against other engines on this machine.

    Engines run in turns, one at a time, each in a process of its own that is stopped while another has its turn. Ratios
    are taken within a round. Give it an idle machine: what it prints names the load it found.
    """
    import tempfile

    import numpy as np

    from modeltree.errors import unknown
    from modeltree.files import check_writable
    from nas.bench import OURS, PEERS, base_cases, installed, measured, results_text, run_cases, save_results
    from nas.cli.display.progress import stages
    from nas.cli.search import default_cache

    if out is not None:
        check_writable(out)
    if formats or kernels:
        return _priced(base, blocks, threads, weights, kernels, target, image_size, seed, out, as_json, cache)
    forms = list(dict.fromkeys(weights or ["f32"]))
    names = list(dict.fromkeys(name for name in peer or PEERS if name != "none"))
    for given, known, what in ((forms, OURS, "weight format"), (names, PEERS, "peer")):
        for name in given:
            if name not in known:
                raise unknown(what, name, known)
    for name in [name for name in names if not installed(PEERS[name])]:
        print(f"{name} is left out: {PEERS[name].package} is not installed: {PEERS[name].hint}")
        names.remove(name)
    with tempfile.TemporaryDirectory() as folder, stages(quiet=False) as progress:
        if blocks is not None:
            cases, what = run_cases(blocks, Path(folder)), f"Blocks of {blocks}, batch 1."
        else:
            cases = base_cases(base or ["vgg11"], Path(folder), image_size=image_size, seed=seed)
            what = f"Whole networks with random weights, {image_size}x{image_size}, batch 1."
        results = measured(
            cases, threads=list(dict.fromkeys(threads or [1, 2])), weights=forms, peers=names, rounds=rounds,
            burst_s=burst_ms / 1e3, rng=np.random.default_rng(seed), what=what,
            tiles=(cache or default_cache() / "compiled") / "tiles.json", tune=tune, progress=progress,
        )  # fmt: skip
    print(results_text(results), end="")
    if out is not None:
        save_results(results, out)
        print(f"every round: {out}")


def _priced(
    base: list[str] | None, blocks: Path | None, threads: list[int] | None, weights: list[str] | None, kernels: bool,
    target: list[str] | None, image_size: int, seed: int, out: Path | None, as_json: bool, cache: Path | None,
) -> None:  # fmt: skip
    """`--formats` and `--kernels`."""
    import tempfile

    from compile.formats import FORMATS
    from compile.targets import load_target
    from modeltree.errors import unknown
    from nas.bench import base_cases, cost_results, costs_json, costs_text, run_cases
    from nas.bench.costs import save_costs
    from nas.cli.display.progress import stages
    from nas.cli.search import default_cache

    forms = list(dict.fromkeys(weights or (["f32"] if kernels else FORMATS)))
    for form in forms:
        if form not in FORMATS:
            raise unknown("weight format", form, FORMATS)
    targets = list(dict.fromkeys(target or ["host"]))
    for name in targets:
        load_target(name)
    with tempfile.TemporaryDirectory() as folder, stages(quiet=False) as progress:
        if blocks is not None:
            cases, what = run_cases(blocks, Path(folder), onnx=False), f"Blocks of {blocks}, batch 1."
        else:
            cases = base_cases(base or ["vgg11"], Path(folder), image_size=image_size, seed=seed, onnx=False)
            what = f"Whole networks with random weights, {image_size}x{image_size}, batch 1."
        results = cost_results(
            cases, kernels=kernels, targets=targets, weights=forms, threads=list(dict.fromkeys(threads or [1])),
            what=what, tiles=(cache or default_cache() / "compiled") / "tiles.json", progress=progress,
        )  # fmt: skip
    print(costs_json(results).decode() if as_json else costs_text(results), end="\n" if as_json else "")
    if out is not None:
        save_costs(results, out)
