"""`nas profile`: measure what operators cost on this machine, or on a device over TVM RPC."""

from pathlib import Path
from typing import Annotated

import typer

from compile.targets import target_names
from nas.names import NUMBER_FORMATS


def profile(
    out: Annotated[Path, typer.Option(help="The profile, JSON; pass it to nas search --device or --cloud")],
    target: Annotated[str, typer.Option(help=f"One of {', '.join(target_names())}, or a target's file.json")] = "host",
    name: Annotated[str | None, typer.Option(help="Goes into trees and reports. The file's name unless said")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Of a call. The target's unless said")] = None,
    number_format: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            help=f"Price it too, for nas search --formats: {', '.join(NUMBER_FORMATS[1:])}; again for "
            "more. Each takes as long as the rest",
        ),
    ] = None,
    rpc: Annotated[
        str | None, typer.Option(help="host:port of python -m tvm.exec.rpc_server on the device; here unless said")
    ] = None,
    rounds: Annotated[int, typer.Option(min=3, help="Times that every stack of layers is measured")] = 15,
    burst_ms: Annotated[float, typer.Option(min=1.0, help="How long each time")] = 20.0,
    check: Annotated[int, typer.Option(min=0, help="Then compare so many random branches with their prediction")] = 0,
    check_base: Annotated[
        list[str] | None, typer.Option(help="Networks that they come from; may be given again. vgg11 unless said")
    ] = None,
    image_size: Annotated[int, typer.Option(help="Height and width in pixels, for --check")] = 32,
    seed: Annotated[int, typer.Option(min=0, help="Of the order and of random branches")] = 0,
    cache: Annotated[Path | None, typer.Option(help="Tuned tiles; ~/.cache/nas/compiled unless said")] = None,
) -> None:
    """Measure every kind of operator through our own compiled kernels and fit a device profile.

    Takes some minutes, most of them the first time, when kernels are tuned. Give it an idle machine.
    """
    import msgspec
    import numpy as np

    from compile.formats import format_of
    from compile.targets import load_target
    from modeltree.errors import unknown
    from modeltree.files import check_writable
    from modeltree.profiles import save_profile
    from nas.bases import build
    from nas.cli.display.progress import stages
    from nas.cli.search import default_cache
    from nas.profiling import (
        checked,
        checks_text,
        format_price,
        jpeg_ns_per_pixel,
        open_timer,
        profiled,
        profiled_text,
        provenance,
        webp_ns_per_pixel,
    )

    check_writable(out)
    known = load_target(target)
    formats = list(dict.fromkeys(number_format or []))
    for form in formats:
        if form not in NUMBER_FORMATS[1:]:
            raise unknown("number format", form, NUMBER_FORMATS[1:])
        format_of(form, known)
    count = threads or known.threads
    known = msgspec.structs.replace(known, threads=count)
    rng = np.random.default_rng(seed)
    title = name or out.stem
    bases = [(base, build(base, num_classes=10, image_size=image_size)) for base in check_base or ["vgg11"]]
    tiles = (cache or default_cache() / "compiled") / "tiles.json"
    with open_timer(known, count, rpc=rpc, tiles=tiles) as timer, stages(quiet=False) as progress:
        found = profiled(
            timer, name=title, description=f"{known.description}, our compiled kernels, threads: {count}",
            origin=provenance(known, count, rpc=rpc, rounds=rounds), jpeg_ns=jpeg_ns_per_pixel(),
            webp_ns=webp_ns_per_pixel(), rounds=rounds, burst_s=burst_ms / 1e3, rng=rng, lanes=known.lanes,
            progress=progress,
        )  # fmt: skip
        save_profile(found.profile, out)
        branches = [] if not check else checked(
            bases, found.profile, timer, branches=check, image_size=image_size, rounds=rounds, burst_s=burst_ms / 1e3,
            rng=rng, progress=lambda done, total, text: progress("check", done, total, text),
        )  # fmt: skip
    prices = {}
    for form in formats:
        with open_timer(known, count, rpc=rpc, tiles=tiles, weights=form) as timer, stages(quiet=False) as progress:
            prices[form] = format_price(timer, rounds=rounds, burst_s=burst_ms / 1e3, rng=rng, progress=progress)
    if prices:
        save_profile(msgspec.structs.replace(found.profile, number_formats=prices), out)
    print(profiled_text(found), end="")
    if branches:
        print(checks_text(branches), end="")
    print(f"profile: {out}")
    print(f"Search with it: nas search --device {out}")
