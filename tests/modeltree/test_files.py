"""Written whole or not at all."""

import errno
import os
import resource

import pytest

from modeltree.errors import DataError
from modeltree.files import write_bytes, write_text, written_whole


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


def test_a_folder_that_cannot_be_is_told(tmp_path):
    write_text(tmp_path / "file", "")
    with pytest.raises(DataError, match="choose another folder"):
        write_text(tmp_path / "file" / "a.txt", "x")
    (tmp_path / "taken").mkdir()
    with pytest.raises(DataError, match="cannot write"):
        write_text(tmp_path / "taken", "x")
