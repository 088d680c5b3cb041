"""`nas run`: classify images with a bundle on this machine, handing over to a server where the tree says so."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import numpy as np

_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm")


def run(
    bundle: Annotated[Path, typer.Argument(help="What nas compile wrote")],
    images: Annotated[list[Path], typer.Argument(help="Image files and folders of them; - is standard input")],
    server: Annotated[
        str | None, typer.Option(help="grpc://, grpcs://, http:// or https://host:port; none: all is done here")
    ] = None,
    mode: Annotated[
        str, typer.Option(help="only-device, prefer-device, prefer-cloud (walks the tree as searched) or only-cloud")
    ] = "prefer-cloud",
    deadline_ms: Annotated[float | None, typer.Option(min=0.0, help="For each image")] = None,
    target: Annotated[str | None, typer.Option(help="Of the bundle; its only one for devices unless said")] = None,
    weights: Annotated[str, typer.Option(help="Kind of weights, one that the bundle was compiled with")] = "f32",
    threads: Annotated[int | None, typer.Option(min=1, help="Of a block; all processors unless said")] = None,
    token_file: Annotated[Path | None, typer.Option(help="File with the token that the server asks for")] = None,
    ca: Annotated[Path | None, typer.Option(help="PEM file of who signed the server's certificate")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line")] = False,
) -> None:
    """Classify images, and say for each which path was taken, why, and where the time went."""
    from modeltree.errors import ConfigError
    from runtime.session import Session

    files = [file for given in images for file in _files(given)]
    if not files:
        raise ConfigError(f"there is no image in {', '.join(map(str, images))}: known are {', '.join(_SUFFIXES)}")
    token = None if token_file is None else token_file.read_text().strip()
    with Session.open(
        bundle, server=server, target=target, variant=weights, mode=mode, threads=threads, token=token, ca=ca
    ) as session:
        tree = session.device.manifest.tree
        for file in files:
            result = session.infer(_pixels(file, tree.input_shape), deadline_ms=deadline_ms)
            name = tree.classes[int(result.output.argmax())]
            parts = result.parts
            if as_json:
                print(json.dumps({
                    "image": str(file), "class": name, "nodes": result.nodes, "answered_by": result.answered_by,
                    "why": result.why, "met": result.met, "ms": {k: round(v, 3) for k, v in vars(parts).items()},
                }), flush=True)  # fmt: skip
                continue
            print(
                f"{file}: {name}; {result.answered_by}, {parts.total:.2f} ms (device {parts.device:.2f}, encode "
                f"{parts.encode:.2f}, transfer {parts.transfer:.2f}, cloud {parts.cloud:.2f}); {result.why}",
                flush=True,
            )  # fmt: skip


def _files(given: Path) -> list[Path]:
    if given.is_dir():
        return sorted(path for path in given.rglob("*") if path.suffix.lower() in _SUFFIXES)
    return [given]


def _pixels(file: Path, shape: tuple[int, ...]) -> "np.ndarray":
    """An image as uint8 (3, height, width) of the tree's input."""
    import numpy as np
    from PIL import Image, UnidentifiedImageError

    from modeltree.errors import DataError

    try:
        with Image.open(sys.stdin.buffer if str(file) == "-" else file) as opened:
            image = opened.convert("RGB").resize((shape[2], shape[1]), Image.Resampling.BILINEAR)
    except (OSError, UnidentifiedImageError) as error:
        raise DataError(f"cannot read image {file}: {error}: pass a PNG or JPEG file") from error
    return np.moveaxis(np.asarray(image), -1, 0).copy()
