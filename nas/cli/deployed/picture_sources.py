"""What `nas run` is given: files, folders, standard input, cameras, videos and folders to watch, as pixels."""

import itertools
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from modeltree.errors import ConfigError, DataError
from modeltree.preprocessing import Preprocessing
from runtime.images.folders import SUFFIXES, image_files
from runtime.images.inputs import pixels_of
from runtime.images.streams import CAMERA, WATCH, frames, is_stream

_KEPT = 256
_STANDARD_INPUT = "-"


class PictureSources:
    """Pictures in the order given, all of them `repeat` times (0: for ever).

    Those that cannot be read are told on standard error, once, and passed over; `broken` counts them.

    Raises
    ------
    ConfigError : there is no picture, a stream cannot be opened, or is to be repeated.
    """

    def __init__(self, given: Sequence[str], preprocessing: Preprocessing, *, repeat: int) -> None:
        self._preprocessing, self._repeat = preprocessing, repeat
        self._streams = {source: frames(source) for source in given if is_stream(source)}
        if self._streams and repeat != 1:
            raise ConfigError(f"{next(iter(self._streams))} cannot be repeated: leave --repeat out")
        self._files = [file for source in given for file in _files(source)]
        if not self._files:
            raise ConfigError(f"there is no image in {', '.join(given)}: known are {', '.join(SUFFIXES)}")
        self._kept: dict[str, np.ndarray] = {}
        self._broken: set[str] = set()

    @property
    def endless(self) -> bool:
        """Whether only Ctrl-C ends them."""
        return self._repeat == 0 or any(source.startswith((CAMERA, WATCH)) for source in self._streams)

    @property
    def broken(self) -> int:
        """How many could not be read."""
        return len(self._broken)

    def __iter__(self) -> Iterator[tuple[str, np.ndarray]]:
        """Names and pixels, (channels, height, width) uint8."""
        for _ in itertools.count() if self._repeat == 0 else range(self._repeat):
            for file in self._files:
                if file in self._streams:
                    for name, picture in self._streams[file]:
                        yield from self._read(name, picture)
                elif file not in self._broken:
                    yield from self._read(file, file)
            if not self._streams and len(self._broken) == len(self._files):
                raise DataError("none of the images can be read: pass others")

    def _read(self, name: str, picture: str | Path | np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
        """The first `_KEPT` are read once, and standard input is."""
        pixels = self._kept.get(name)
        if pixels is None:
            try:
                source = sys.stdin.buffer.read() if name == _STANDARD_INPUT else picture
                pixels = pixels_of(source, self._preprocessing, name=name)
            except DataError as error:
                print(f"nas: {error}", file=sys.stderr)
                self._broken.add(name)
                return
            if self._repeat != 1 and (len(self._kept) < _KEPT or name == _STANDARD_INPUT):
                self._kept[name] = pixels
        yield name, pixels


def _files(source: str) -> list[str]:
    if source != _STANDARD_INPUT and not is_stream(source) and Path(source).is_dir():
        return [str(path) for path in image_files(Path(source))]
    return [source]
