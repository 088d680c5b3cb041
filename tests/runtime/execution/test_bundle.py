"""Opening a bundle: nothing is given out that is not what the manifest says."""

import os

import pytest
from bundles import FIRST, FROM_FOUR, manifest, write_bundle

from modeltree.errors import ConfigError, DataError, FormatError
from modeltree.manifest import MAX_MANIFEST_BYTES, library_file
from runtime.execution.bundle import Bundle

LIBRARY = library_file("pi4", FIRST)


@pytest.fixture
def folder(tmp_path):
    return write_bundle(tmp_path / "bundle")


def test_a_whole_bundle_opens_and_gives_out_its_files(folder):
    bundle = Bundle.open(folder, "pi4")
    assert bundle.manifest == manifest()
    assert bundle.library_path(FIRST, target="pi4") == folder / LIBRARY
    assert bundle.library_path(FROM_FOUR, target="server", batch=8) == folder / f"lib/server/{FROM_FOUR}.b8.so"
    assert bundle.runtime_path("pi4") == folder / "lib/pi4/libtvm_runtime.so"
    assert bundle.runtime_path("server") is None
    assert bundle.onnx_path(FROM_FOUR) == folder / f"onnx/{FROM_FOUR}.onnx"
    assert bundle.onnx_path(FIRST) is None
    assert bundle.problems() == []


def flipped(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_file_more_is_no_harm(folder):
    (folder / "README").write_text("hello")
    (folder / "lib/pi4/extra.so").write_text("never loaded")
    assert not Bundle.open(folder, "pi4").problems()


def linked_outside(path):
    outside = path.parents[3] / "outside.so"
    path.rename(outside)
    path.symlink_to(outside)


def in_a_circle(path):
    path.unlink()
    path.symlink_to(path.name)


def folder_instead(path):
    path.unlink()
    path.mkdir()


def pipe_instead(path):
    path.unlink()
    os.mkfifo(path)


OFF = {
    "a bit flipped": (flipped, "has sha256 .* it must be"),
    "cut short": (lambda path: path.write_bytes(path.read_bytes()[:-1]), "bytes: it must have"),
    "longer": (lambda path: path.write_bytes(path.read_bytes() + b"x"), "bytes: it must have"),
    "empty": (lambda path: path.write_bytes(b""), "has 0 bytes"),
    "missing": (lambda path: path.unlink(), "is missing"),
    "a link outside": (linked_outside, "outside the bundle"),
    "a dangling link": (lambda path: (path.unlink(), path.symlink_to("nowhere")), "is missing"),
    "a folder": (folder_instead, "not a regular file"),
    "a pipe": (pipe_instead, "not a regular file"),
    "a link in a circle": (in_a_circle, "cannot read"),
}


@pytest.mark.parametrize("what", OFF)
@pytest.mark.parametrize("file", [LIBRARY, "lib/pi4/libtvm_runtime.so"])
def test_a_file_that_is_off_is_refused_by_name(folder, what, file):
    spoil, why = OFF[what]
    spoil(folder / file)
    with pytest.raises((FormatError, DataError), match=why) as refused:
        Bundle.open(folder, "pi4")
    assert str(folder / file) in str(refused.value)
    (problem,) = Bundle.open(folder).problems()
    assert str(folder / file) in problem


def test_a_file_of_another_target_is_checked_when_it_is_asked_for(folder):
    flipped(folder / LIBRARY)
    bundle = Bundle.open(folder, "server")
    with pytest.raises(FormatError, match=LIBRARY):
        bundle.library_path(FIRST, target="pi4")


def test_every_file_that_is_off_is_named(folder):
    off = [LIBRARY, f"onnx/{FROM_FOUR}.onnx", f"lib/server/{FROM_FOUR}.so"]
    for file in off:
        flipped(folder / file)
    lines = Bundle.open(folder).problems()
    assert len(lines) == 3
    assert all(any(str(folder / file) in line for line in lines) for file in off)


def test_a_link_inside_the_bundle_is_followed(folder):
    (folder / LIBRARY).rename(folder / "lib/pi4/moved.so")
    (folder / LIBRARY).symlink_to("moved.so")
    assert not Bundle.open(folder, "pi4").problems()


def test_a_folder_that_is_a_link_outside_is_refused(folder, tmp_path):
    (folder / "lib/pi4").rename(tmp_path / "elsewhere")
    (folder / "lib/pi4").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FormatError, match="outside the bundle"):
        Bundle.open(folder, "pi4")


def test_a_bundle_may_itself_be_reached_through_a_link(folder, tmp_path):
    (tmp_path / "current").symlink_to(folder)
    assert not Bundle.open(tmp_path / "current", "pi4").problems()


def test_a_manifest_that_is_a_link_outside_is_refused(folder, tmp_path):
    (folder / "manifest.json").rename(tmp_path / "manifest.json")
    (folder / "manifest.json").symlink_to(tmp_path / "manifest.json")
    with pytest.raises(FormatError, match=r"manifest\.json is a link to .* outside"):
        Bundle.open(folder)


def test_a_newer_bundle_is_named_as_such(folder):
    path = folder / "manifest.json"
    path.write_bytes(path.read_bytes().replace(b'"nas-bundle",\n  "version": 1', b'"nas-bundle",\n  "version": 2'))
    with pytest.raises(FormatError, match=r"manifest\.json is not .* version 2, .* newer than this program"):
        Bundle.open(folder)


def test_a_huge_manifest_is_not_read_into_memory(folder):
    with (folder / "manifest.json").open("r+b") as opened:
        opened.truncate(MAX_MANIFEST_BYTES * 1000)  # a sparse file of 64 GB
    with pytest.raises(FormatError, match="larger than"):
        Bundle.open(folder)


@pytest.mark.parametrize("there", [True, False])
def test_what_is_no_bundle_is_told(tmp_path, there):
    folder = tmp_path / "b"
    if there:
        folder.mkdir()
    with pytest.raises(ConfigError, match="is not a bundle"):
        Bundle.open(folder)


def test_what_the_bundle_does_not_have_is_told_with_what_it_has(folder):
    bundle = Bundle.open(folder)
    with pytest.raises(ConfigError, match=r"unknown target of .* 'pi5': known are pi4, server"):
        Bundle.open(folder, "pi5")
    with pytest.raises(ConfigError, match="unknown target"):
        bundle.runtime_path("pi5")
    with pytest.raises(ConfigError, match="unknown block"):
        bundle.library_path("ff", target="pi4")
    with pytest.raises(ConfigError, match="known are pi4 f32 batch 1, pi4 int8 batch 1"):
        bundle.library_path(FIRST, target="pi4", variant="bf16")
