"""`nas run`: run images through a bundle on this machine, handing over to a server where the tree says so."""

import contextlib
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from modeltree.tree import ModelTree
    from nas.cli.display.live import LiveView
    from runtime.result import Result


def run(
    bundle: Annotated[Path, typer.Argument(help="What nas compile wrote")],
    images: Annotated[
        list[str],
        typer.Argument(
            help="Image files and folders of them; - is standard input, camera:0 a camera, watch:DIR pictures as they "
            "are put into a folder, a video its frames"
        ),
    ],
    server: Annotated[
        str | None, typer.Option(help="grpc://, grpcs://, http:// or https://host:port; none: all is done here")
    ] = None,
    mode: Annotated[
        str, typer.Option(help="only-device, prefer-device, prefer-cloud (walks the tree as searched) or only-cloud")
    ] = "prefer-cloud",
    policy: Annotated[
        str,
        typer.Option(help="What chooses the forks: switch (the bandwidth's type), measured, exact, or a policy's file"),
    ] = "measured",
    deadline_ms: Annotated[float | None, typer.Option(min=0.0, help="For each image")] = None,
    target: Annotated[str | None, typer.Option(help="Of the bundle; its only one for devices unless said")] = None,
    weights: Annotated[str, typer.Option(help="Kind of weights, one that the bundle was compiled with")] = "f32",
    threads: Annotated[int | None, typer.Option(min=1, help="Of a block; all processors unless said")] = None,
    token_file: Annotated[Path | None, typer.Option(help="File with the token that the server asks for")] = None,
    ca: Annotated[Path | None, typer.Option(help="PEM file of who signed the server's certificate")] = None,
    tls_cert: Annotated[
        Path | None, typer.Option(help="PEM file of this device's own certificate, where the server wants one")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM file of its key")] = None,
    frames: Annotated[
        bool,
        typer.Option(
            help="The server is nas serve and knows our coded frames; --no-frames for any other server "
            "of the Open Inference Protocol that hosts the ONNX forms under their names"
        ),
    ] = True,
    hedge: Annotated[
        bool, typer.Option(help="Start the rest here while still waiting, when the cloud's answer is overdue")
    ] = True,
    repeat: Annotated[int, typer.Option(min=0, help="Rounds over the images; 0: until Ctrl-C")] = 1,
    every_ms: Annotated[float, typer.Option(min=0.0, help="From one image's start to the next, at least")] = 0.0,
    live: Annotated[bool, typer.Option("--live", help="Draw link, path and latency at the terminal instead")] = False,
    labels: Annotated[
        bool, typer.Option("--labels", help="Images lie in folders named like their classes: print top-1 at the end")
    ] = False,
    save: Annotated[
        Path | None, typer.Option(help="Folder that takes every answer's tensors, one .npz a picture")
    ] = None,
    met: Annotated[
        Path | None, typer.Option(help="File for what was met, for nas refit and nas search --measured")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line")] = False,
) -> None:
    """Run a network on images, and say for each which path was taken, why, and where the time went."""
    from modeltree.errors import ConfigError, DataError
    from modeltree.files import check_writable
    from modeltree.met import write_met
    from nas.cli.deployed.picture_sources import PictureSources
    from nas.cli.display.live import Answers, LiveView
    from nas.cli.display.top1 import Top1
    from runtime.session import Session
    from runtime.wire.protocol.token import read_token

    if met is not None:
        check_writable(met)
    if live and as_json:
        raise ConfigError("--live draws and --json prints lines: pass one of them")
    token = None if token_file is None else read_token(token_file)
    answers = Answers()
    with Session.open(
        bundle, server=server, target=target, variant=weights, mode=mode, threads=threads, token=token, ca=ca,
        certificate=tls_cert, key=tls_key, frames=frames, hedge=hedge, policy=policy,
    ) as session:  # fmt: skip
        tree = session.device.manifest.tree
        pictures = PictureSources(images, tree.preprocessing, repeat=repeat)
        top1 = Top1(tree=tree)
        try:
            if server is not None and frames and mode != "only-device" and not session.measure():
                print(
                    f"nas: {server} did not answer a probe, and the slowest bandwidth is assumed for now: "
                    f"{session.unanswered or 'it is left alone'}",
                    file=sys.stderr,
                )
            with LiveView(session, answers) if live and sys.stdout.isatty() else contextlib.nullcontext() as view:
                due_s = 0.0
                for file, pixels in pictures:
                    _wait(due_s, view)
                    due_s = time.perf_counter() + every_ms / 1e3
                    result = session.infer(pixels, deadline_ms=deadline_ms)
                    answers.add(result, file)
                    top1.add(result, file)
                    if save is not None:
                        _save(save, answers.count, file, result)
                    if view is None:
                        _print(tree, file, result, as_json=as_json)
                    else:
                        view.show()
        except KeyboardInterrupt:
            if repeat and not pictures.endless:
                raise
        finally:
            if met is not None:
                write_met(session.met(), met)
            if live or repeat != 1 or pictures.endless:
                print(f"nas: {answers.summary()}", file=sys.stderr)
            if labels:
                print(json.dumps(top1.numbers) if as_json else top1.text, flush=True)
    if pictures.broken:
        raise DataError(f"{pictures.broken} of the images could not be read, see above: {answers.count} were answered")


def _print(tree: "ModelTree", file: str, result: "Result", *, as_json: bool) -> None:
    from nas.cli.display.answers import shown, summed

    name, parts = shown(tree, result), result.parts
    if as_json:
        said = {"outputs": summed(result)} if tree.outputs else {"class": name}
        print(json.dumps({
            "image": file, **said, "nodes": result.nodes, "answered_by": result.answered_by,
            "why": result.why, "met": result.met, "ms": {k: round(v, 3) for k, v in vars(parts).items()},
        }), flush=True)  # fmt: skip
        return
    print(
        f"{file}: {name}; {result.answered_by}, {parts.total:.2f} ms (device {parts.device:.2f}, encode "
        f"{parts.encode:.2f}, transfer {parts.transfer:.2f}, cloud {parts.cloud:.2f}); {result.why}",
        flush=True,
    )  # fmt: skip


def _save(folder: Path, count: int, file: str, result: "Result") -> None:
    """The answer's tensors as one .npz, named after the picture and its number."""
    import numpy as np

    from modeltree.files import written_whole

    with (
        written_whole(folder / f"{count:06d}_{Path(file).stem}.npz") as temporary,
        temporary.open("wb") as opened,
    ):
        np.savez(opened, allow_pickle=False, **result.outputs)


def _wait(until_s: float, view: "LiveView | None") -> None:
    """Sleep, in steps that keep the picture up to date."""
    from nas.cli.display.live import UPDATES_PER_S

    while (left_s := until_s - time.perf_counter()) > 0:
        time.sleep(left_s if view is None else min(left_s, 1 / UPDATES_PER_S))
        if view is not None:
            view.show()
