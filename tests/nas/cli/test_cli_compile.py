"""nas compile and nas show at the command line: what it prints, and the status it ends with."""

import json
from types import SimpleNamespace

import pytest
from bundles import FIRST, FROM_FOUR, SHAPES, manifest, tree, write_bundle

from compile.bundle import Tools
from modeltree.tree import encode_tree
from runtime.execution.bundle import Bundle


@pytest.fixture
def bundle(tmp_path):
    return write_bundle(tmp_path / "bundle")


def test_a_bundle_is_shown_as_its_tree_and_its_libraries(nas, bundle):
    status, told, error = nas("show", bundle)
    assert (status, error) == (0, [])
    assert "vgg11: 3x32x32 to 2 classes" in told
    row = next(line for line in told.splitlines() if line.strip().startswith(FROM_FOUR[:8]) and "server" in line)
    assert row.split() == [
        FROM_FOUR[:8], "rest", "from", "place", "4", "256x4x4", "2", "server", "f32", "1", "0.01", "0", "1.5e-06",
    ]  # fmt: skip
    assert "block 1" in told
    assert "not run" in told
    assert "weights int8: 91.25 % of 1000 images (measured on test images)" in told
    assert "for server: 4 files" in told


def test_a_bundle_is_shown_as_json_and_for_graphviz(nas, bundle):
    assert json.loads(nas("show", bundle, "--json")[1])["format"] == "nas-bundle"
    assert nas("show", bundle, "--dot")[1].startswith("digraph")


def test_verify_says_that_all_is_well(nas, bundle):
    status, told, error = nas("show", bundle, "--verify")
    assert (status, error) == (0, [])
    count = len(list(manifest().files()))
    assert told.splitlines()[-1] == f"All {count} files are as the manifest says."


def test_verify_names_every_file_that_is_off_and_ends_with_status_2(nas, bundle):
    (bundle / f"lib/pi4/{FIRST}.so").write_bytes(b"x")
    (bundle / f"onnx/{FROM_FOUR}.onnx").unlink()
    status, told, error = nas("show", bundle, "--verify")
    assert (status, told) == (2, "")
    assert len(error) == 2
    assert any(f"lib/pi4/{FIRST}.so has 1 bytes" in line for line in error)
    assert any(f"onnx/{FROM_FOUR}.onnx is missing" in line for line in error)


def test_a_damaged_manifest_is_one_line_and_status_2(nas, bundle):
    (bundle / "manifest.json").write_bytes(b"{")
    status, told, error = nas("show", bundle)
    assert (status, told, len(error)) == (2, "", 1)
    assert "manifest.json is not a bundle's manifest" in error[0]


def test_verify_is_for_bundles(nas, tmp_path):
    status, _, error = nas("show", tmp_path, "--verify")
    assert status == 2
    assert "is not a bundle: --verify checks what nas compile wrote" in error[0]


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    (folder / "blocks").mkdir(parents=True)
    (folder / "tree.json").write_bytes(encode_tree(tree()))
    for block in SHAPES:
        (folder / "blocks" / f"{block}.pt2").write_bytes(block.encode())
    return folder


@pytest.fixture
def compiler(monkeypatch):
    """Stands in for TVM; answers with what it was asked for."""
    asked = []

    def compile_block(program, target, *, batch, weights, dump):
        asked.append((program, target.name, weights, batch))
        enters, leaves = SHAPES[program]
        return SimpleNamespace(
            library=f"{program} {target.name} {weights} {batch}".encode(), input_shape=(batch, *enters),
            output_shape=(batch, *leaves), weight_bytes=1, workspace_bytes=1, macs=10**7,
        )  # fmt: skip

    tools = Tools(
        load=lambda path: path.stem, compile_block=compile_block, verify_block=lambda *args, **options: (2e-6, 2e-7),
        vouch_block=lambda *args, **options: (3e-6, 3e-7), runtime_library=lambda target: None,
        onnx_form=lambda program: b"onnx",
    )  # fmt: skip
    monkeypatch.setattr("compile.bundle.from_run.real_tools", lambda cache, tune: tools)
    return asked


def test_compile_writes_a_bundle_prints_it_and_says_how_to_go_on(nas, run, compiler, tmp_path):
    status, told, _ = nas("compile", run, "--target", "pi4", "--target", "host", "--weights", "f32", "--weights",
                          "int8", "--batch", "1", "--batch", "4", "--onnx", "--out", tmp_path / "b")  # fmt: skip
    assert status == 0
    assert len(compiler) == 4 * 2 * 2 * 2
    assert set(Bundle.open(tmp_path / "b", "pi4").manifest.targets) == {"pi4", "host"}
    assert "10.00" in told
    assert f"nas show {tmp_path / 'b'} --verify" in told.splitlines()[-1]
    status, _, error = nas("compile", run, "--out", tmp_path / "b")
    assert status == 2
    assert "holds a bundle already: pass --force" in error[-1]
    assert nas("compile", run, "--out", tmp_path / "b", "--force")[0] == 0
    assert set(Bundle.open(tmp_path / "b").manifest.targets) == {"host"}


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--target", "pi9"], "unknown target 'pi9': known are a file.json, host, phone, pi3, pi4"),
        (["--cloud-target", "nowhere.json"], "cannot read target nowhere.json"),
    ],
)
def test_compile_refuses_in_one_line_and_leaves_nothing(nas, run, compiler, tmp_path, words, why):
    status, told, error = nas("compile", run, "--out", tmp_path / "b", *words)
    assert (status, told, len(error)) == (2, "", 1)
    assert why in error[0]
    assert not (tmp_path / "b").exists()
    assert compiler == []


def test_compile_of_what_is_no_run_says_so(nas, compiler, tmp_path):
    status, _, error = nas("compile", tmp_path / "nothing", "--out", tmp_path / "b")
    assert (status, len(error)) == (2, 1)
    assert "is not a run directory: pass what nas search wrote to --out" in error[0]


def test_libraries_with_reckoned_tiles_are_not_taken_for_timed_ones(nas, run, compiler, tmp_path):
    kept = ("--target", "pi4", "--target", "host", "--cache", tmp_path / "kept", "--force", "--out", tmp_path / "b")
    assert nas("compile", run, "--tune", "none", *kept)[0] == 0
    compiler.clear()
    assert nas("compile", run, *kept)[0] == 0
    assert {target for _, target, _, _ in compiler} == {"host"}
    compiler.clear()
    assert nas("compile", run, "--tune", "none", *kept)[0] == 0
    assert compiler == []
