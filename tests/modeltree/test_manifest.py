"""The manifest: telling a true one from any other, whatever the bytes."""

import json

import msgspec
import pytest
from bundles import FIRST, FROM_FOUR, FROM_IMAGE, SECOND, manifest, tree
from hypothesis import given, settings
from hypothesis import strategies as st
from json_changes import both, setting

from modeltree.errors import FormatError, NasError
from modeltree.manifest import (
    FileEntry,
    LibraryEntry,
    Manifest,
    decode_manifest,
    encode_manifest,
    is_manifest,
    library_file,
    paths_of,
    roles_of,
)

DATA = encode_manifest(manifest())
SHA = "0" * 64


def spoilt(change):
    """The JSON of a good manifest after `change` was done to it."""
    plain = json.loads(DATA)
    change(plain)
    return json.dumps(plain).encode()


def dropping(*path):
    def change(plain):
        for key in path[:-1]:
            plain = plain[key]
        del plain[path[-1]]

    return change


def repeating(*path):
    def change(plain):
        for key in path:
            plain = plain[key]
        plain.append(plain[0])

    return change


LIBRARY = ("blocks", FIRST, "libraries", 0)

HOSTILE = {
    "newer version": (setting("version", value=2), "version 2, we read 'nas-bundle' version 1: it is newer"),
    "newer version with keys we do not know": (
        both(setting("version", value=2), setting("signature", value="x")), "it is newer than this program"
    ),
    "older version": (setting("version", value=0), "version 0, .*compile it again"),
    "another format": (setting("format", value="nas-modeltree"), "this is 'nas-modeltree'"),
    "no format": (dropping("format"), "format"),
    "version as text": (setting("version", value="1"), "int"),
    "unknown key": (setting("colour", value="red"), "colour"),
    "unknown key in a library": (setting(*LIBRARY, "colour", value="red"), "colour"),
    "a tree that is none": (setting("tree", "nodes", 0, "id", value=9), "has id 9"),
    "a newer tree": (setting("tree", "version", value=6), "version 6"),
    "absolute path": (setting(*LIBRARY, "file", value="/lib/pi4/x.so"), "leaves the bundle"),
    "path upwards": (setting(*LIBRARY, "file", value="lib/pi4/../../../etc/passwd"), "leaves the bundle"),
    "path upwards at once": (setting(*LIBRARY, "file", value="../x.so"), "leaves the bundle"),
    "a dot": (setting(*LIBRARY, "file", value="lib/./x.so"), "out of place"),
    "an empty part": (setting(*LIBRARY, "file", value="lib//x.so"), "out of place"),
    "an empty path": (setting(*LIBRARY, "file", value=""), "out of place"),
    "a hidden file": (setting(*LIBRARY, "file", value="lib/pi4/.x.so"), "out of place"),
    "a NUL": (setting(*LIBRARY, "file", value="lib/pi4/x.so\0"), "out of place"),
    "a line end": (setting(*LIBRARY, "file", value="lib/pi4/x.so\n"), "out of place"),
    "a backslash": (setting(*LIBRARY, "file", value="lib/pi4/..\\x.so"), "out of place"),
    "a drive": (setting(*LIBRARY, "file", value="c:/pi4/x.so"), "out of place"),
    "the manifest as library": (setting(*LIBRARY, "file", value="manifest.json"), "out of place"),
    "a long name": (setting(*LIBRARY, "file", value="lib/pi4/" + "x" * 999), "out of place"),
    "another target's folder": (setting(*LIBRARY, "file", value="lib/server/x.so"), "must lie in lib/pi4/"),
    "a library as ONNX": (setting("blocks", FROM_FOUR, "onnx", "file", value="lib/pi4/x"), "must lie in onnx/"),
    "a runtime elsewhere": (setting("targets", "pi4", "runtime", "file", value="lib/server/x"), "must lie in lib/pi4/"),
    "a short sha256": (setting(*LIBRARY, "sha256", value="0" * 63), "sha256"),
    "sha256 in capitals": (setting(*LIBRARY, "sha256", value="A" * 64), "sha256"),
    "sha256 with a line end": (setting(*LIBRARY, "sha256", value=SHA + "\n"), "sha256"),
    "negative size": (setting(*LIBRARY, "bytes", value=-1), "bytes"),
    "huge size": (setting(*LIBRARY, "bytes", value=10**18), "bytes"),
    "size as text": (setting(*LIBRARY, "bytes", value="7"), "bytes"),
    "negative error": (setting(*LIBRARY, "max_abs_error", value=-1.0), "finite number, 0 up"),
    "batch 0": (setting(*LIBRARY, "batch", value=0), "batch"),
    "a library twice": (repeating("blocks", FIRST, "libraries"), "has libraries .* they must be"),
    "a library missing": (dropping("blocks", FIRST, "libraries", 0), "has libraries .* they must be"),
    "no libraries": (setting("blocks", FIRST, "libraries", value=[]), "has libraries .* they must be"),
    "a target that is not there": (setting(*LIBRARY, "target", value="pi9"), "has libraries .* for target pi4"),
    "a target missing": (dropping("targets", "server"), "is for target 'server': known are pi4"),
    "no targets": (setting("targets", value={}), "known are none"),
    "a target whose name is a path": (
        lambda plain: plain["targets"].update({"../pi4": plain["targets"].pop("pi4")}), "targets"
    ),
    "another target's record": (setting("targets", "pi4", "record", "name", value="pi5"), "names 'pi5'"),
    "a record without a name": (dropping("targets", "pi4", "record", "name"), "names None"),
    "a target only of the device": (setting("targets", "pi4", "roles", value=["device"]), "device and rest, or rest"),
    "a target without batches": (setting("targets", "pi4", "batches", value=[]), "no variants or no batches"),
    "one file with two contents": (
        setting(*LIBRARY, "file", value=library_file("pi4", SECOND)), "named with two contents"
    ),
    "a block missing": (dropping("blocks", SECOND), f"block {SECOND} of the tree is not among"),
    "a rest missing": (dropping("blocks", FROM_IMAGE), f"block {FROM_IMAGE} of the tree is not among"),
    "a block that nothing names": (
        lambda plain: plain["blocks"].update({"0" * 20: plain["blocks"][FIRST]}), "not named by the tree"
    ),
    "a block whose name is a path": (lambda plain: plain["blocks"].update({"../x": plain["blocks"][FIRST]}), "blocks"),
    "a node without its block": (setting("tree", "nodes", 0, "block", value=""), "node 0 names no block"),
    "a block that runs nothing": (setting("tree", "nodes", 3, "block", value=FIRST), "but runs nothing"),
    "a hand-over to nothing": (
        setting("tree", "nodes", 3, "handover", "block", value=""), "hands over to no block"
    ),
    "roles": (setting("blocks", FIRST, "roles", value=["rest"]), "has roles"),
    "an unknown role": (setting("blocks", FIRST, "roles", value=["king"]), "king"),
    "an input that does not fit": (setting("blocks", SECOND, "in_shape", value=[256, 4, 5]), "on the way to leaf 2"),
    "an output that does not fit": (setting("blocks", FIRST, "out_shape", value=[9]), "on the way to leaf 2"),
    "wrong logits": (setting("blocks", FROM_FOUR, "out_shape", value=[3]), "must be 2 logits"),
    "a hand-over that does not fit": (
        setting("tree", "nodes", 3, "handover", "shape", value=[256, 4, 5]), r"hands over \[256, 4, 5\]"
    ),
    "a shape of 0": (setting("blocks", FIRST, "in_shape", value=[0, 32, 32]), "in_shape"),
    "another type": (setting("blocks", FIRST, "in_dtype", value="object"), "object"),
    "a path missing": (dropping("paths", 0), "paths are not those of the tree"),
    "an accuracy made better": (setting("paths", 0, "accuracy", value=99.0), "paths are not those of the tree"),
    "accuracy of weights over 100": (setting("variant_accuracy", "int8", "accuracy", value=101.0), "accuracy"),
    "a nested record": (setting("targets", "pi4", "record", "x", value={}), "record"),
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_a_manifest_that_is_not_consistent_is_refused_and_says_why(what):
    change, why = HOSTILE[what]
    with pytest.raises(FormatError, match=rf"^b/manifest\.json is not a bundle's manifest: (?s:.)*({why})"):
        decode_manifest(spoilt(change), "b/manifest.json")


def test_a_manifest_comes_back_and_gives_the_same_bytes_whatever_order_it_was_made_in():
    assert decode_manifest(DATA, "m") == manifest()
    assert encode_manifest(decode_manifest(DATA, "m")) == DATA
    one = manifest()
    turned = {name: dict(reversed(getattr(one, name).items())) for name in ("targets", "blocks")}
    assert encode_manifest(msgspec.structs.replace(one, **turned)) == DATA


WRONG = [
    b"", b"\xff\xfe{", b"[]", b"null", b"[" * 100_000, b'{"x":' * 100_000, b'{"format": "nas-bundle", "version": 1}',
    b'{"format": "nas-bundle", "version": 1e999}', DATA.replace(b"0.25", b"NaN"), DATA.replace(b"0.25", b"1e999"),
    DATA.replace(b'"vgg11"', b'"\xff"'), b"\xef\xbb\xbf" + DATA, DATA + b"{}",
]  # fmt: skip


@pytest.mark.parametrize("data", WRONG, ids=range(len(WRONG)))
def test_what_is_no_manifest_at_all_is_refused(data):
    with pytest.raises(FormatError, match="is not a bundle's manifest"):
        decode_manifest(data, "m.json")


def test_deep_json_inside_an_open_part_is_refused():
    deep = b"[" * 100_000 + b"]" * 100_000
    with pytest.raises(FormatError, match="is not a bundle's manifest"):
        decode_manifest(DATA.replace(b'"seed": 0', b'"seed": ' + deep), "m.json")


def test_a_key_that_is_there_twice_is_refused():
    """Readers differ in which of the two they take."""
    twice = DATA.replace(b'"rtt_ms": 30.0', b'"rtt_ms": 1.0, "rtt_ms": 30.0')
    with pytest.raises(FormatError, match="key 'rtt_ms' is there twice"):
        decode_manifest(twice, "m.json")


def test_a_huge_manifest_is_refused_unread(monkeypatch):
    monkeypatch.setattr("modeltree.manifest.document.MAX_MANIFEST_BYTES", len(DATA))
    assert decode_manifest(DATA, "m.json") == manifest()
    with pytest.raises(FormatError, match="larger than"):
        decode_manifest(DATA + b" ", "m.json")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.6, 0.9999])
def test_a_truncated_manifest_is_refused(share):
    with pytest.raises(FormatError):
        decode_manifest(DATA[: int(share * (len(DATA) - 2))], "m.json")


def read(data):
    """The manifest, or what was said against it. Anything but a NasError goes through."""
    try:
        return decode_manifest(data, "m.json")
    except NasError as error:
        return str(error)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(DATA) - 1), st.integers(0, 400), st.binary(max_size=12))
def test_changed_bytes_give_a_manifest_or_a_clean_error(at, count, new):
    found = read(DATA[:at] + new + DATA[at + count :])
    assert isinstance(found, Manifest) or found.startswith("m.json is not a bundle's manifest")


def places(plain, here=()):
    """Every position in plain data."""
    yield here
    inside = plain.items() if isinstance(plain, dict) else enumerate(plain) if isinstance(plain, list) else ()
    for key, value in inside:
        yield from places(value, (*here, key))


PLACES = [place for place in places(json.loads(DATA)) if place]
ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(PLACES), ANY)
def test_any_value_anywhere_gives_a_manifest_or_a_clean_error(place, value):
    found = read(spoilt(setting(*place, value=value)))
    if isinstance(found, Manifest):
        assert read(encode_manifest(found)) == found
    else:
        assert found.startswith("m.json is not a bundle's manifest")


@pytest.mark.parametrize("error", [float("nan"), float("inf"), -1e-9])
def test_an_error_that_is_no_number_cannot_be_written_as_not_run(error):
    with pytest.raises(FormatError, match="finite"):
        LibraryEntry(
            file="lib/a/b.so", sha256=SHA, bytes=1, target="a", batch=1, variant="f32", weight_bytes=0,
            workspace_bytes=0, macs=0, max_abs_error=error,
        )  # fmt: skip


def test_a_file_outside_cannot_be_named():
    with pytest.raises(FormatError, match="leaves the bundle"):
        FileEntry(file="../x", sha256=SHA, bytes=1)


def test_paths_tell_what_runs_where():
    by_leaf = {path.leaf: path for path in paths_of(tree())}
    assert by_leaf[1].blocks == () and (by_leaf[1].handover_place, by_leaf[1].rest) == (0, FROM_IMAGE)  # noqa: PT018
    assert by_leaf[2].blocks == (FIRST, SECOND) and by_leaf[2].rest is None  # noqa: PT018
    assert by_leaf[3].nodes == (0, 3) and by_leaf[3].rest == FROM_FOUR  # noqa: PT018


def test_a_block_that_is_a_rest_too_has_both_roles():
    """Nothing compressed, nothing fine-tuned: block 2 is the base network's rest."""
    nodes = list(tree().nodes)
    handover = msgspec.structs.replace(nodes[3].handover, block=SECOND)
    nodes[3] = msgspec.structs.replace(nodes[3], handover=handover)
    assert roles_of(msgspec.structs.replace(tree(), nodes=tuple(nodes)))[SECOND] == ("device", "rest")


def test_files_are_those_of_the_target():
    assert sorted(entry.file for entry in manifest().files_of("server")) == sorted(
        library_file("server", block, batch=batch) for block in (FROM_IMAGE, FROM_FOUR) for batch in (1, 8)
    )
    assert len(list(manifest().files_of("pi4"))) == 1 + 4 * 2
    assert len(list(manifest().files())) == 1 + 4 * 2 + 4 + 2


@pytest.mark.parametrize(
    ("variant", "batch", "name"),
    [("f32", 1, "ab.so"), ("int8", 1, "ab.int8.so"), ("f32", 8, "ab.b8.so"), ("bf16", 8, "ab.bf16.b8.so")],
)
def test_a_library_is_named_by_what_it_is(variant, batch, name):
    assert library_file("pi4", "ab", variant=variant, batch=batch) == f"lib/pi4/{name}"


def test_a_manifest_is_told_from_other_manifests():
    assert is_manifest(DATA)
    assert is_manifest(spoilt(setting("version", value=7)))
    assert not any(map(is_manifest, (b"", b'{"name": "my web app"}', b"[" * 100_000, b'{"x":' * 100_000, b"\xff")))
