"""Names and places of a bundle's files."""

import re

from modeltree.errors import FormatError

MANIFEST_NAME = "manifest.json"

SHIM_NAME = "libnas_runtime.so"
"""Our runtime library in C, which comes with the bundle where TVM publishes none for the target."""
TVM_NAME = "libtvm_runtime.so"
"""TVM's runtime library. A bundle holds one of the two for every target."""

_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}")


def library_file(target: str, block: str, *, variant: str = "f32", batch: int = 1) -> str:
    """Where a compiled block lies in a bundle."""
    kind = "" if variant == "f32" else f".{variant}"
    size = "" if batch == 1 else f".b{batch}"
    return f"lib/{target}/{block}{kind}{size}.so"


def runtime_file(target: str, name: str) -> str:
    """Where a target's runtime library lies in a bundle."""
    return f"lib/{target}/{name}"


def onnx_file(block: str) -> str:
    """Where the ONNX form of a block lies in a bundle."""
    return f"onnx/{block}.onnx"


def check_place(file: str) -> None:
    """A file of a bundle lies in `lib/TARGET/` or `onnx/`, under a plain name.

    Raises
    ------
    FormatError : it does not.
    """
    parts = file.split("/")
    if file.startswith("/") or ".." in parts:
        raise FormatError(f"file {file!r} leaves the bundle: it must be a relative path without '..'")
    deep = {"lib": 3, "onnx": 2}.get(parts[0])
    if len(parts) != deep or not all(_PART.fullmatch(part) for part in parts):
        raise FormatError(
            f"file {file!r} is out of place: it must be lib/TARGET/NAME or onnx/NAME, in plain characters"
        )
