"""Cameras, videos and watched folders."""

import sys

import numpy as np
import pytest
from PIL import Image

from modeltree.errors import ConfigError, DataError
from runtime.images.streams import frames, is_stream


@pytest.fixture
def cv2():
    return pytest.importorskip("cv2", reason="needs OpenCV: pip install 'nas-modeltree[camera]'")


@pytest.mark.parametrize(
    ("source", "streams"),
    [("camera:0", True), ("watch:photos", True), ("x.mp4", True), ("a/B.AVI", True), ("x.jpg", False), ("-", False)],
)
def test_streams_are_known_by_their_names(source, streams):
    assert is_stream(source) is streams


def test_without_opencv_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ConfigError, match=r"camera:0 needs OpenCV.*nas-modeltree\[camera\]"):
        frames("camera:0")


@pytest.mark.parametrize("source", ["camera:", "camera:x", "camera:-1", "x.txt"])
def test_what_is_no_stream_is_refused(source):
    with pytest.raises(ConfigError, match="is no"):
        frames(source)


def test_a_video_gives_its_frames_in_order_red_first(cv2, tmp_path):
    path = tmp_path / "x.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 5, (64, 48))
    for level in (40, 120, 200):
        picture = np.zeros((48, 64, 3), np.uint8)
        picture[..., 2] = level  # red, in OpenCV's order
        writer.write(picture)
    writer.release()
    found = list(frames(str(path)))
    assert [name for name, _ in found] == [f"{path} #{i}" for i in range(3)]
    assert all(picture.shape == (48, 64, 3) for _, picture in found)
    reds = [picture[..., 0].mean() for _, picture in found]
    assert reds == pytest.approx([40, 120, 200], abs=4)
    assert max(picture[..., 2].mean() for _, picture in found) < 10


def test_what_is_no_video_is_refused(cv2, tmp_path):
    with pytest.raises(ConfigError, match="there is no video"):
        frames(str(tmp_path / "none.mp4"))
    (tmp_path / "x.mp4").write_bytes(b"not a video")
    with pytest.raises(DataError, match="cannot be read as a video"):
        list(frames(str(tmp_path / "x.mp4")))


class Camera:
    """A camera that is unplugged after three pictures."""

    def __init__(self, is_there):
        self.left, self.is_there, self.released = 3, is_there, False

    def isOpened(self):
        return self.is_there

    def read(self):
        self.left -= 1
        return self.left >= 0, np.full((4, 6, 3), (1, 2, 3), np.uint8)

    def release(self):
        self.released = True


def test_a_camera_that_is_not_there_or_goes_is_said(cv2, monkeypatch):
    camera = Camera(is_there=False)
    monkeypatch.setattr(cv2, "VideoCapture", lambda which: camera)
    with pytest.raises(ConfigError, match="camera 3 cannot be opened"):
        frames("camera:3")
    assert camera.released
    camera = Camera(is_there=True)
    found = frames("camera:0")
    pictures = [next(found) for _ in range(3)]
    assert pictures[0][1][0, 0].tolist() == [3, 2, 1]
    with pytest.raises(DataError, match="no more pictures after 3"):
        next(found)
    assert camera.released


def test_a_camera_is_let_go_when_nobody_asks_any_more(cv2, monkeypatch):
    camera = Camera(is_there=True)
    monkeypatch.setattr(cv2, "VideoCapture", lambda which: camera)
    found = frames("camera:0")
    next(found)
    found.close()
    assert camera.released


def test_a_watched_folder_gives_new_pictures_once_they_are_whole(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "old.png")
    (tmp_path / "cat").mkdir()

    def write(name, size):
        (tmp_path / name).write_bytes(bytes(size))

    steps = [
        lambda: write("cat/a.png", 10), lambda: write("cat/a.png", 20), lambda: None, lambda: write("._b.png", 5),
        lambda: write("b.jpg", 7), lambda: None, lambda: write("old.png", 99), lambda: None,
    ]  # fmt: skip
    done = []

    def sleep(seconds):
        done.append(len(done))
        steps[done[-1]]()

    found = frames(f"watch:{tmp_path}", sleep=sleep)
    assert next(found) == (str(tmp_path / "cat/a.png"), tmp_path / "cat/a.png")
    assert len(done) == 3
    assert next(found)[1].name == "b.jpg"
    assert len(done) == 6
    assert next(found)[1].name == "old.png"


def test_a_folder_that_is_not_there_cannot_be_watched(tmp_path):
    with pytest.raises(ConfigError, match="there is no folder"):
        frames(f"watch:{tmp_path / 'none'}")
