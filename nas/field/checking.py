"""Answers of a field run against the torch networks of the paths that were taken."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from compile.program_file import read_program
from modeltree.errors import ConfigError, NasError
from modeltree.files import inside
from modeltree.image_codes import image_code
from modeltree.tree import Handover, ModelTree
from nas.field.images import FieldImages
from nas.field.record import Shot
from runtime.images import coded, received, sendable_file
from runtime.wire.codec import FLOAT_BITS, dequantise, quantise

TOLERANCES = {"f32": 1e-3}
"""Largest difference that rounding makes, as a share of the largest logit; of other weights see `tolerance_of`."""

_COARSE = 0.15


def tolerance_of(weights: str) -> float:
    """For weights that are kept with fewer bits the check only tells a wrong path from a coarse one."""
    return TOLERANCES.get(weights, _COARSE)


class Checker:
    """Runs exported blocks along paths.

    Parameters
    ----------
    run : directory of the search, with `blocks/`.
    """

    def __init__(self, run: Path) -> None:
        self._folder = run / "blocks"
        if not self._folder.is_dir():
            raise ConfigError(f"{run} holds no blocks/: pass the directory that nas search wrote to --check")
        self._modules: dict[str, Any] = {}

    def error(
        self, tree: ModelTree, shot: Shot, output: tuple[float, ...], pixels: np.ndarray, *, filed: bool = False
    ) -> float:
        """Largest difference of the logits, as a share of torch's largest; pixels : (c, h, w) uint8."""
        wanted = self.logits(tree, shot, pixels, filed=filed)
        return relative_error(np.array(output), wanted.ravel())

    def logits(self, tree: ModelTree, shot: Shot, pixels: np.ndarray, *, filed: bool = False) -> np.ndarray:
        """What torch says of an image along the path that a shot took, quantised where it crossed.

        pixels : (channels, height, width) uint8. filed : whether the device had a file to send as it came.
        """
        path = [tree.nodes[number] for number in shot.nodes]
        end = path[-1].handover if path else _whole(tree)
        if end is not None and shot.answered_by == "cloud" and end.code and not (end.code == "came" and filed):
            taking = tree.preprocessing
            file = coded(pixels, image_code(end.code), taking.rule.channels)
            pixels = received(file, taking, whole=False)
        x = tree.preprocessing.normalised(pixels)[None]
        for node in path:
            if node.block:
                x = self._run(node.block, x)
        if end is None:
            return x[0]
        crossed = shot.answered_by == "cloud" and end.place > 0 and end.bits != FLOAT_BITS
        return self._run(end.block, dequantise(quantise(x, end.bits)) if crossed else x)[0]

    def _run(self, block: str, x: np.ndarray) -> np.ndarray:
        if block not in self._modules:
            path = inside(self._folder, f"{block}.pt2")
            if not path.is_file():
                raise ConfigError(f"{path} is not there: pass the directory of the search that the bundle is made from")
            self._modules[block] = read_program(path).module()
        with torch.no_grad():
            return np.asarray(self._modules[block](torch.from_numpy(x)).numpy())


def relative_error(found: np.ndarray, wanted: np.ndarray) -> float:
    """Largest difference as a share of the largest wanted; infinite where something is not finite or does not fit.

    found, wanted : of any shape, the same.
    """
    if found.shape != wanted.shape or not (np.isfinite(found).all() and np.isfinite(wanted).all()):
        return float("inf")
    return float(np.abs(found - wanted).max() / max(float(np.abs(wanted).max()), 1e-12))


def checked(
    checker: Checker, tree: ModelTree, shots: tuple[Shot, ...], outputs: tuple[tuple[float, ...], ...],
    images: FieldImages,
) -> list[float]:  # fmt: skip
    """The error of every shot."""
    if len(outputs) != len(shots):
        raise NasError(f"{len(outputs)} answers for {len(shots)} inferences: ask the device for outputs")
    pixels = images.images
    filed = [sendable_file(file) is not None for file in images.files] or [False] * len(pixels)
    return [
        checker.error(tree, shot, output, pixels[i % len(pixels)], filed=filed[i % len(pixels)])
        for i, (shot, output) in enumerate(zip(shots, outputs, strict=True))
    ]


def _whole(tree: ModelTree) -> Handover | None:
    """Where mode only-cloud hands over."""
    return next((node.handover for node in tree.nodes if node.handover and not node.handover.place), None)
