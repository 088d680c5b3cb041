"""Writing a bundle: each block once, the same input the same bytes.

The compiler here is a stand-in that names what it was asked for; the real one is tested where it is.
"""

import msgspec
import pytest
from bundles import FIRST, FROM_FOUR, FROM_IMAGE, SECOND, SHAPES, tree
from stand_in_tools import PI4, WANTED, Stand, beside, bytes_of, wishing

from compile.bundle import Wanted, compile_run
from compile.targets import TARGETS, load_target
from modeltree.errors import ConfigError, DataError, FormatError, GraphError
from modeltree.tree import encode_tree
from runtime.execution.bundle import Bundle


def test_a_bundle_has_every_block_for_the_device_and_the_rests_for_the_cloud(run, tmp_path):
    out, stand = tmp_path / "b", Stand()
    manifest = compile_run(run, out, WANTED, tools=stand.tools())
    bundle = Bundle.open(out, "pi4")
    assert bundle.manifest == manifest
    assert bundle.problems() == []
    assert sorted(stand.compiled) == sorted(
        [(block, "pi4", "f32", 1) for block in SHAPES]
        + [(block, "x86-64-v3", "f32", 1) for block in (FROM_IMAGE, FROM_FOUR)]
    )
    assert bundle.library_path(SECOND, target="pi4").read_bytes() == f"{SECOND} pi4 f32 1".encode()
    assert manifest.targets["x86-64-v3"].roles == ("rest",)
    assert manifest.targets["pi4"].record["cpu"] == "cortex-a72"
    assert (manifest.provenance.commit, manifest.provenance.config) == ("1b676fb", {"base": "vgg11"})
    assert beside(out) == []


def test_kinds_of_weights_batches_and_onnx_are_written_side_by_side(run, tmp_path):
    wanted = Wanted(targets=[PI4], variants=["f32", "int8"], batches=[1, 8], onnx=True)
    manifest = compile_run(run, tmp_path / "b", wanted, tools=Stand().tools())
    library = Bundle.open(tmp_path / "b").library(FIRST, target="pi4", variant="int8", batch=8)
    assert library.file == f"lib/pi4/{FIRST}.int8.b8.so"
    assert library.macs == 72
    assert manifest.blocks[FIRST].in_shape == (3, 32, 32)
    assert (tmp_path / "b" / "onnx" / f"{FIRST}.onnx").read_bytes() == b"onnx of " + FIRST.encode()


def test_a_block_is_compiled_in_the_number_format_that_the_tree_gives_it(run, tmp_path):
    nodes = tree().nodes
    mixed = (*nodes[:2], msgspec.structs.replace(nodes[2], number_format="int8"), nodes[3])
    (run / "tree.json").write_bytes(encode_tree(msgspec.structs.replace(tree(), nodes=mixed, version=4)))
    stand = Stand()
    wanted = Wanted(targets=[PI4], variants=["f32", "bf16"])
    manifest = compile_run(run, tmp_path / "b", wanted, tools=stand.tools())
    asked = {(block, weights) for block, _, weights, _ in stand.compiled}
    assert asked == {(block, "bf16") for block in SHAPES} | {
        (block, "int8" if block == SECOND else "f32") for block in SHAPES
    }
    told = {(one.variant, one.number_format) for one in manifest.blocks[SECOND].libraries}
    assert told == {("f32", "int8"), ("bf16", "")}
    assert Bundle.open(tmp_path / "b", "pi4").library_path(SECOND, target="pi4").read_bytes().endswith(b"pi4 int8 1")


def test_a_block_in_two_number_formats_is_refused(run, tmp_path):
    nodes = tree().nodes
    twice = msgspec.structs.replace(nodes[2], number_format="int8", block=FIRST)
    (run / "tree.json").write_bytes(
        encode_tree(msgspec.structs.replace(tree(), nodes=(*nodes[:2], twice, nodes[3]), version=4))
    )
    with pytest.raises(FormatError, match=f"block {FIRST} is asked for in f32 and in int8"):
        compile_run(run, tmp_path / "b", WANTED, tools=Stand().tools())


def test_the_same_run_gives_the_same_bytes_cache_or_not(run, tmp_path):
    wanted = wishing(onnx=True)
    compile_run(run, tmp_path / "one", wanted, tools=Stand().tools())
    compile_run(run, tmp_path / "two", wanted, cache=tmp_path / "cache", tools=Stand().tools())
    compile_run(run, tmp_path / "three", wanted, cache=tmp_path / "cache", tools=Stand().tools())
    assert bytes_of(tmp_path / "one") == bytes_of(tmp_path / "two") == bytes_of(tmp_path / "three")


def test_what_is_in_the_cache_is_neither_compiled_nor_loaded_again(run, tmp_path):
    stand = Stand()
    compile_run(run, tmp_path / "one", WANTED, cache=tmp_path / "cache", tools=Stand().tools())
    compile_run(run, tmp_path / "two", WANTED, cache=tmp_path / "cache", tools=stand.tools())
    assert stand.compiled == stand.loaded == stand.verified == []


def test_a_program_is_loaded_once_for_all_its_libraries(run, tmp_path):
    stand = Stand()
    compile_run(run, tmp_path / "b", wishing(variants=["f32", "bf16"]), tools=stand.tools())
    assert sorted(stand.loaded) == sorted(SHAPES)


CHANGES = {
    "another program": lambda run: ((run / "blocks" / f"{FIRST}.pt2").write_bytes(b"program of other weights"), WANTED),
    "another cpu": lambda run: (None, wishing(targets=[msgspec.structs.replace(PI4, cpu="cortex-a76")])),
    "other threads": lambda run: (None, wishing(targets=[msgspec.structs.replace(PI4, threads=1)])),
    "other weights": lambda run: (None, wishing(variants=["int8"])),
    "another batch": lambda run: (None, wishing(batches=[2])),
    "a dump": lambda run: (None, wishing(dump=run / "dump")),
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_decides_the_bytes_decides_what_the_cache_gives(run, tmp_path, what):
    compile_run(run, tmp_path / "one", WANTED, cache=tmp_path / "cache", tools=Stand().tools())
    _, wanted = CHANGES[what](run)
    stand = Stand()
    compile_run(run, tmp_path / "two", wanted, cache=tmp_path / "cache", tools=stand.tools())
    assert any(program == FIRST for program, *_ in stand.compiled)


def test_other_code_or_versions_compile_again(run, tmp_path, monkeypatch):
    compile_run(run, tmp_path / "one", WANTED, cache=tmp_path / "cache", tools=Stand().tools())
    monkeypatch.setattr("compile.bundle.writer.versions", lambda onnx=False: {"apache-tvm": "99"})
    stand = Stand()
    compile_run(run, tmp_path / "two", WANTED, cache=tmp_path / "cache", tools=stand.tools())
    assert len(stand.compiled) == 6


def test_a_damaged_cache_is_not_believed(run, tmp_path):
    compile_run(run, tmp_path / "one", WANTED, cache=tmp_path / "cache", tools=Stand().tools())
    libraries = sorted((tmp_path / "cache").glob("*.so"))
    libraries[0].write_bytes(b"tampered")
    libraries[1].with_suffix(".json").write_bytes(b"[" * 10_000)
    libraries[2].unlink()
    stand = Stand()
    compile_run(run, tmp_path / "two", WANTED, cache=tmp_path / "cache", tools=stand.tools())
    assert len(stand.compiled) == 3
    assert bytes_of(tmp_path / "one") == bytes_of(tmp_path / "two")


def test_equal_content_for_one_target_is_stored_once(run, tmp_path):
    stand = Stand()

    def compile_block(program, *args, **options):
        made = Stand.compile_block(stand, program, *args, **options)
        made.library = b"the same"
        return made

    stand.compile_block = compile_block
    manifest = compile_run(run, tmp_path / "b", WANTED, tools=stand.tools())
    assert len(list((tmp_path / "b/lib/pi4").iterdir())) == 2
    assert len({block.libraries[0].file for block in manifest.blocks.values()}) == 1
    assert Bundle.open(tmp_path / "b", "pi4").problems() == []


def test_what_runs_here_is_verified_and_the_rest_is_vouched_for_by_a_twin(run, tmp_path):
    stand = Stand()
    wanted = Wanted(targets=[load_target("host"), TARGETS["pi3"]], cloud_targets=[load_target("host")])
    manifest = compile_run(run, tmp_path / "b", wanted, cache=tmp_path / "cache", tools=stand.tools())
    libraries = [library for block in manifest.blocks.values() for library in block.libraries]
    errors = {(library.target, library.max_abs_error, library.vouched_error) for library in libraries}
    assert errors == {("host", 1e-6, None), ("pi3", None, 2e-6)}
    assert (len(stand.verified), len(stand.vouched)) == (4, 4)


def test_a_library_whose_twin_is_wrong_is_not_written(run, tmp_path):
    stand = Stand()

    def vouch_block(program, target, **options):
        raise GraphError("differs")

    stand.vouch_block = vouch_block
    with pytest.raises(GraphError):
        compile_run(run, tmp_path / "b", WANTED, cache=tmp_path / "c", tools=stand.tools())
    assert not (tmp_path / "b").exists()


def test_what_was_not_verified_is_verified_when_asked_for_later(run, tmp_path):
    host, stand = load_target("host"), Stand()
    compile_run(run, tmp_path / "a", Wanted(targets=[host], verify=False), cache=tmp_path / "c", tools=stand.tools())
    assert stand.verified == []
    again = Stand()
    compile_run(run, tmp_path / "b", Wanted(targets=[host]), cache=tmp_path / "c", tools=again.tools())
    assert (again.compiled, len(again.verified)) == ([], 4)


def test_a_library_that_fails_verification_is_not_kept(run, tmp_path):
    stand = Stand()

    def verify_block(program, library, **options):
        raise GraphError("differs")

    stand.verify_block = verify_block
    with pytest.raises(GraphError):
        compile_run(run, tmp_path / "b", Wanted(targets=[load_target("host")]), cache=tmp_path / "c",
                    tools=stand.tools())  # fmt: skip
    assert list((tmp_path / "c").glob("*")) == []
    assert not (tmp_path / "b").exists()


def test_a_target_of_the_cloud_is_left_out_where_nothing_is_handed_over(run, tmp_path):
    nodes = tree().nodes
    leaf = msgspec.structs.replace(nodes[2].leaf, chance=1.0)
    both = msgspec.structs.replace(nodes[0].fork, types=(0, 1))
    chain = (
        msgspec.structs.replace(nodes[0], fork=both, children=(1,)),
        msgspec.structs.replace(nodes[2], id=1, fork=both, leaf=leaf),
    )
    (run / "tree.json").write_bytes(encode_tree(msgspec.structs.replace(tree(), nodes=chain)))
    manifest = compile_run(run, tmp_path / "b", WANTED, tools=Stand().tools())
    assert set(manifest.targets) == {"pi4"}
    assert Bundle.open(tmp_path / "b", "pi4").problems() == []


def remove(*parts):
    return lambda run: run.joinpath(*parts).unlink()


def write(name, data):
    return lambda run: (run / name).write_bytes(data)


SPOILT = {
    "no tree": (remove("tree.json"), ConfigError, "is not a run directory"),
    "a damaged tree": (write("tree.json", b"{"), FormatError, r"tree\.json is not a model tree"),
    "a block missing": (remove("blocks", f"{SECOND}.pt2"), DataError, rf"{SECOND}\.pt2 is missing"),
    "a damaged block": (write(f"blocks/{SECOND}.pt2", b"x"), DataError, rf"{SECOND}\.pt2 is not an exported program"),
    "a damaged summary": (write("summary.json", b"{"), FormatError, r"summary\.json is not a run's summary"),
    "a summary that is a list": (write("summary.json", b"[]"), FormatError, r"summary\.json is not a run's summary"),
    "a commit that is a number": (
        write("summary.json", b'{"provenance": {"commit": 7}}'), FormatError, r"summary\.json is not a run's summary"
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", SPOILT)
def test_a_run_that_is_off_is_refused_by_name_and_leaves_nothing(run, tmp_path, what):
    spoil, error, why = SPOILT[what]
    spoil(run)
    with pytest.raises(error, match=why):
        compile_run(run, tmp_path / "b", WANTED, tools=Stand().tools())
    assert not (tmp_path / "b").exists()
    assert beside(tmp_path / "b") == []


def test_a_run_without_a_summary_will_do(run, tmp_path):
    (run / "summary.json").unlink()
    assert compile_run(run, tmp_path / "b", WANTED, tools=Stand().tools()).provenance.commit == ""


def test_a_folder_that_cannot_be_made_is_told(run, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write"):
        compile_run(run, tmp_path / "file" / "b", WANTED, tools=Stand().tools())


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"targets": []}, "nothing to compile"),
        ({"targets": [PI4], "variants": []}, "nothing to compile"),
        ({"targets": [PI4], "batches": [0]}, "at least 1"),
        ({"targets": [PI4, msgspec.structs.replace(PI4, threads=1)]}, "two targets are called pi4"),
    ],
)
def test_contradictory_wishes_are_refused(asked, why):
    with pytest.raises(ConfigError, match=why):
        Wanted(**asked)
