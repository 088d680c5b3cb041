"""Written whole or not at all."""

import contextlib
import errno
import os
import re
import resource
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeltree.errors import DataError, FormatError
from modeltree.files import check_writable, inside, write_bytes, write_text, written_whole


@pytest.fixture
def small_files():
    """No file may grow beyond 4 kB: as good as a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_what_is_written_is_there_and_nothing_else(tmp_path):
    write_text(tmp_path / "deep" / "er" / "a.txt", "größer\n")
    assert (tmp_path / "deep" / "er" / "a.txt").read_bytes() == "größer\n".encode()
    assert [path.name for path in (tmp_path / "deep" / "er").iterdir()] == ["a.txt"]
    assert (tmp_path / "deep" / "er" / "a.txt").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_exception_leaves_the_old_file_and_nothing_beside_it(tmp_path, error):
    path = tmp_path / "a.bin"
    write_bytes(path, b"old")

    def fails():
        with written_whole(path) as temporary:
            temporary.write_bytes(b"half")
            raise error("stop")

    with pytest.raises(error):
        fails()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_old_file_stays_readable_until_the_end(tmp_path):
    path = tmp_path / "a.bin"
    write_bytes(path, b"old")
    with written_whole(path) as temporary:
        temporary.write_bytes(b"new")
        assert path.read_bytes() == b"old"
        assert temporary.parent == path.parent  # a rename within one folder is atomic
    assert path.read_bytes() == b"new"


@pytest.mark.usefixtures("small_files")
def test_a_full_disk_is_told_in_words_and_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.bin"
    write_bytes(path, b"old")
    with pytest.raises(DataError, match=r"cannot write .*a\.bin: .*free some space") as caught:
        write_bytes(path, b"x" * 10_000)
    assert isinstance(caught.value.__cause__, OSError)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_disk_that_is_full_only_when_flushed_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.bin"
    write_bytes(path, b"old")

    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match="No space left on device"):
        write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_can_be_written_is_let_through_and_leaves_nothing(tmp_path):
    check_writable(tmp_path / "new" / "deep" / "file")
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_written_is_told_beforehand(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "file" / "below"):
        with pytest.raises(DataError, match=re.escape(str(tmp_path))):
            check_writable(path)


def test_a_folder_that_cannot_be_is_told(tmp_path):
    write_text(tmp_path / "file", "")
    with pytest.raises(DataError, match="choose another folder"):
        write_text(tmp_path / "file" / "a.txt", "x")
    (tmp_path / "taken").mkdir()
    with pytest.raises(DataError, match="cannot write"):
        write_text(tmp_path / "taken", "x")


@pytest.mark.parametrize("name", ["a", "a.pt2", "lib/pi4/a-1.so", "_x", "A+b.c"])
def test_a_plain_name_lies_inside_its_folder(tmp_path, name):
    assert inside(tmp_path, name) == tmp_path / name


NO_NAMES = [
    "",
    ".",
    "..",
    "../a",
    "a/../b",
    "/a",
    "a//b",
    "a/",
    "a\0b",
    "a\nb",
    "\u0430",
    "-x",
    ".x",
    "a" * 200,
    "~",
    "a\\b",
]


@pytest.mark.parametrize("name", NO_NAMES)
def test_a_name_that_is_no_plain_name_is_refused(tmp_path, name):
    with pytest.raises(FormatError, match="is no name of a file"):
        inside(tmp_path, name)


@given(st.text(max_size=40))
def test_no_name_leads_out_of_its_folder(name):
    folder = Path("/nowhere/folder")
    with contextlib.suppress(FormatError):
        assert os.path.normpath(inside(folder, name)).startswith("/nowhere/folder/")


def test_links_out_of_the_folder_and_in_circles_are_refused(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/out").symlink_to(tmp_path)
    (tmp_path / "in/round").symlink_to(tmp_path / "in/round")
    for name in ("out", "out/x", "round"):
        with pytest.raises(FormatError):
            inside(tmp_path / "in", name)
