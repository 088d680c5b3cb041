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
        list[str] | None, typer.Option(help="Of our libraries: f32, bf16 or int8; may be given again. f32 unless said")
    ] = None,
    peer: Annotated[
        list[str] | None,
        typer.Option(help="ort, openvino, openvino-bf16, torch, tvm-default or none; again for more. All unless said"),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Turns that every engine gets on every network")] = 15,
    burst_ms: Annotated[float, typer.Option(min=1.0, help="How long a turn is timed")] = 150.0,
    image_size: Annotated[int, typer.Option(help="Height and width in pixels, for --base")] = 32,
    seed: Annotated[int, typer.Option(min=0, help="Of weights and of the order of turns")] = 0,
    out: Annotated[Path | None, typer.Option(help="JSON file for every round")] = None,
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
    formats = list(dict.fromkeys(weights or ["f32"]))
    names = list(dict.fromkeys(name for name in peer or PEERS if name != "none"))
    for given, known, what in ((formats, OURS, "weight format"), (names, PEERS, "peer")):
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
            cases, threads=list(dict.fromkeys(threads or [1, 2])), weights=formats, peers=names, rounds=rounds,
            burst_s=burst_ms / 1e3, rng=np.random.default_rng(seed), what=what,
            tiles=(cache or default_cache() / "compiled") / "tiles.json", progress=progress,
        )  # fmt: skip
    print(results_text(results), end="")
    if out is not None:
        save_results(results, out)
        print(f"every round: {out}")
