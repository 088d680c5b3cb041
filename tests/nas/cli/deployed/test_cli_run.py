"""What `nas run` is shown and what it counts, around a session that is made up."""

import io
import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from bundles import tree
from PIL import Image

from nas.cli import main
from runtime.result import Parts, Result

CLASSES = tree().classes
"""cat and dog."""


class DarkIsCat:
    """Says cat of dark pictures and dog of bright ones, on the path to node 2, of which the tree says 90.5 %."""

    def __init__(self):
        self.device = SimpleNamespace(manifest=SimpleNamespace(tree=tree()))
        self.means = []

    def infer(self, pixels, *, deadline_ms=None):
        self.means.append(float(pixels.mean()))
        bright = self.means[-1] / 255
        return Result(output=np.array([1 - bright, bright]), nodes=(0, 2), answered_by="device", why="", types=(),
                      mbps=(), parts=Parts(), classes=CLASSES)  # fmt: skip

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


@pytest.fixture
def run(monkeypatch, capsys):
    """Words -> (status, lines, lines on standard error, session)."""

    def call(*words):
        session = DarkIsCat()
        monkeypatch.setattr("runtime.session.Session.open", lambda *_, **__: session)
        monkeypatch.setattr(sys, "argv", ["nas", "run", "bundle", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        told = capsys.readouterr()
        return ended.value.code, told.out.splitlines(), told.err.splitlines(), session

    return call


@pytest.fixture
def folder(tmp_path):
    """Three dark cats, one bright one; two bright dogs, and one picture of a holiday."""
    for name, level in (("cat/0", 0), ("cat/1", 20), ("cat/2", 40), ("cat/3", 250), ("dog/0", 250), ("dog/1", 200),
                        ("holiday/0", 200)):  # fmt: skip
        file = tmp_path / f"{name}.png"
        file.parent.mkdir(exist_ok=True)
        Image.new("RGB", (50, 40), (level,) * 3).save(file)
    return tmp_path


def test_labels_count_the_pictures_that_are_classified_as_their_folders_say(run, folder):
    status, out, error, _ = run(folder, "--labels")
    assert (status, error, len(out)) == (0, [], 8)
    assert out[-1] == "top-1 83.33 % of 6 images; the report says 90.50 % of these paths; 1 without a label"
    _, out, _, _ = run(folder, "--labels", "--json")
    assert json.loads(out[-1]) == {
        "top1": pytest.approx(500 / 6), "right": 5, "images": 6, "unlabelled": 1, "report": 90.5
    }  # fmt: skip


def test_folders_that_are_no_classes_are_said(run, folder):
    _, out, _, _ = run(folder / "holiday", "--labels")
    assert out[-1].startswith("top-1 is not known: no image lies in a folder that is named like a class, such as cat")


def test_a_broken_picture_is_reported_and_the_rest_goes_on(run, folder):
    (folder / "cat" / "1.png").write_bytes(b"\x89PNG no more")
    (folder / "cat" / ".DS_Store").write_bytes(b"x")
    status, out, error, session = run(folder, folder / "nowhere.jpg", "--labels")
    assert (status, len(session.means)) == (2, 6)
    assert out[-1].startswith("top-1 80.00 % of 5 images")
    assert error[0].startswith(f"nas: cannot read image {folder / 'cat' / '1.png'}")
    assert error[1].startswith(f"nas: cannot read image {folder / 'nowhere.jpg'}")
    assert error[2:] == ["nas: 2 of the images could not be read, see above: 6 were answered"]


def test_in_rounds_a_broken_picture_is_reported_once(run, folder):
    (folder / "cat" / "1.png").write_bytes(b"")
    status, _, error, session = run(folder, "--repeat", 3)
    assert (status, len(session.means)) == (2, 18)
    assert sum("cannot read image" in line for line in error) == 1


def test_nothing_but_broken_pictures_is_an_error(run, tmp_path):
    (tmp_path / "x.png").write_bytes(b"x")
    status, out, error, _ = run(tmp_path)
    assert (status, out) == (2, [])
    assert error[-1] == "nas: none of the images can be read: pass others"


def test_a_folder_without_pictures_says_which_are_known(run, tmp_path):
    (tmp_path / "x.gif").write_bytes(b"x")
    assert "there is no image in" in run(tmp_path)[2][0]


def test_standard_input_is_a_picture(run, folder, monkeypatch):
    data = (folder / "dog" / "1.png").read_bytes()
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data)))
    status, out, _, session = run("-", "--repeat", 2)
    assert (status, session.means) == (0, [200.0, 200.0])
    assert out[0].startswith("-: dog")


def test_frames_of_a_video_are_classified_in_order(run, tmp_path):
    cv2 = pytest.importorskip("cv2", reason="needs OpenCV: pip install 'nas-modeltree[camera]'")
    path = tmp_path / "x.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 5, (64, 48))
    for level in (10, 240):
        writer.write(np.full((48, 64, 3), level, np.uint8))
    writer.release()
    status, out, error, _ = run(path)
    assert (status, error) == (0, [])
    assert [line.split(": ")[1].split(";")[0] for line in out] == ["cat", "dog"]
    assert out[1].startswith(f"{path} #1: ")
    assert "cannot be repeated" in run(path, "--repeat", 2)[2][0]


def test_a_camera_ends_well_with_ctrl_c(run, monkeypatch):
    def frames(source):
        yield f"{source} #0", np.zeros((48, 64, 3), np.uint8)
        raise KeyboardInterrupt

    monkeypatch.setattr("nas.cli.deployed.picture_sources.frames", frames)
    status, out, error, _ = run("camera:0")
    assert (status, len(out)) == (0, 1)
    assert error[0].startswith("nas: 1 image classified")


def test_a_camera_without_opencv_says_what_to_install(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    status, _, error, _ = run("camera:0")
    assert status == 2
    assert error == ["nas: camera:0 needs OpenCV, which is not installed: pip install 'nas-modeltree[camera]'"]
