"""Pictures one after the other from where they arise: a camera, a video, a folder that is watched."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from modeltree.errors import ConfigError, DataError
from runtime.images.folders import image_files

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v")
CAMERA, WATCH = "camera:", "watch:"

_POLL_S = 0.2

Frame = tuple[str, Path | np.ndarray]
"""A name, and a file or (height, width, 3) uint8, red first."""


def is_stream(source: str) -> bool:
    """Whether this is `camera:N`, `watch:DIR` or the name of a video."""
    return source.startswith((CAMERA, WATCH)) or Path(source).suffix.lower() in VIDEO_SUFFIXES


def frames(source: str, *, sleep: Callable[[float], None] = time.sleep) -> Iterator[Frame]:
    """Pictures as they come.

    Parameters
    ----------
    source : `camera:N` (the N-th camera; endless), a video's file (its frames in order), or `watch:DIR` (pictures that
        are put into the folder or changed from now on, each when it is written to its end; endless).
    sleep : between two looks into a folder.

    Raises
    ------
    ConfigError : OpenCV is not installed, no such camera or folder, or no such source. DataError : not a video.
    """
    if source.startswith(CAMERA):
        number = source.removeprefix(CAMERA)
        if not number.isdecimal():
            raise ConfigError(f"{source!r} is no camera: it must be camera: and a number, such as camera:0")
        return _captured(int(number), source)
    if source.startswith(WATCH):
        return _watched(Path(source.removeprefix(WATCH)), sleep)
    if Path(source).suffix.lower() in VIDEO_SUFFIXES:
        return _captured(source, source)
    raise ConfigError(f"{source!r} is no stream: it must be camera:N, watch:DIR or a video's file")


def _captured(which: int | str, source: str) -> Iterator[Frame]:
    cv2 = _opencv(source)
    if isinstance(which, str) and not Path(which).is_file():
        raise ConfigError(f"there is no video {which}: check the name")
    capture = cv2.VideoCapture(which)
    if not capture.isOpened():
        capture.release()
        if isinstance(which, int):
            raise ConfigError(f"camera {which} cannot be opened: check that it is connected, and that no other uses it")
        raise DataError(f"{which} cannot be read as a video: convert it, to MP4 for instance")
    return _frames_of(cv2, capture, source, is_endless=isinstance(which, int))


def _frames_of(cv2: Any, capture: Any, source: str, *, is_endless: bool) -> Iterator[Frame]:
    try:
        number = 0
        while True:
            is_there, frame = capture.read()
            if not is_there:
                break
            yield f"{source} #{number}", cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
            number += 1
    finally:
        capture.release()
    if is_endless:
        raise DataError(f"{source} gives no more pictures after {number}: was it unplugged? start again")
    if not number:
        raise DataError(f"{source} holds no picture that can be read: convert it, to MP4 for instance")


def _opencv(source: str) -> Any:
    try:
        import cv2
    except ImportError as error:
        raise ConfigError(
            f"{source} needs OpenCV, which is not installed: pip install 'nas-modeltree[camera]'"
        ) from error
    return cv2


def _watched(folder: Path, sleep: Callable[[float], None]) -> Iterator[Frame]:
    if not folder.is_dir():
        raise ConfigError(f"there is no folder {folder} to watch: make it first")
    return _new_files(folder, _states(folder), sleep)


def _new_files(folder: Path, given: dict[Path, tuple[int, int]], sleep: Callable[[float], None]) -> Iterator[Frame]:
    """Files whose size and time are new, once they have been the same at two looks."""
    before = given
    while True:
        sleep(_POLL_S)
        now = _states(folder)
        for path, state in now.items():
            if given.get(path) != state and before.get(path) == state:
                given[path] = state
                yield str(path), path
        given = {path: state for path, state in given.items() if path in now}
        before = now


def _states(folder: Path) -> dict[Path, tuple[int, int]]:
    """Size and time of every picture; one that goes while we look is not there."""
    found = {}
    for path in image_files(folder):
        try:
            stat = path.stat()
        except OSError:
            continue
        found[path] = (stat.st_size, stat.st_mtime_ns)
    return found
