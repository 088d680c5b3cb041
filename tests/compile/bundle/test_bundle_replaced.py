"""A bundle is written whole or not at all, and takes the place of nothing but a bundle."""

import pytest
from bundles import FIRST
from stand_in_tools import WANTED, Stand, beside, bytes_of, wishing

from compile.bundle import compile_run
from modeltree.errors import ConfigError, GraphError
from modeltree.manifest import library_file
from runtime.execution.bundle import Bundle


@pytest.mark.parametrize("error", [KeyboardInterrupt, GraphError])
def test_an_interrupted_compilation_leaves_nothing_and_goes_on(run, tmp_path, error):
    out, cache = tmp_path / "b", tmp_path / "cache"
    with pytest.raises(error):
        compile_run(run, out, WANTED, cache=cache, tools=Stand(stop=4, error=error).tools())
    assert not out.exists()
    assert beside(out) == []
    stand = Stand()
    compile_run(run, out, WANTED, cache=cache, tools=stand.tools())
    assert len(stand.compiled) == 6 - 4
    assert Bundle.open(out).problems() == []


def test_an_old_bundle_stays_until_the_new_one_is_whole(run, tmp_path):
    out = tmp_path / "b"
    compile_run(run, out, WANTED, tools=Stand().tools())
    before = bytes_of(out)
    with pytest.raises(ConfigError, match="holds a bundle already: pass --force"):
        compile_run(run, out, WANTED, tools=Stand().tools())
    with pytest.raises(KeyboardInterrupt):
        compile_run(run, out, WANTED, overwrite=True, tools=Stand(stop=3).tools())
    assert bytes_of(out) == before
    compile_run(run, out, wishing(variants=["int8"]), overwrite=True, tools=Stand().tools())
    assert not (out / library_file("pi4", FIRST)).exists()
    assert Bundle.open(out).problems() == []
    assert beside(out) == []


def test_what_a_killed_run_left_is_cleared_away(run, tmp_path):
    out = tmp_path / "b"
    (tmp_path / ".b.part" / "lib").mkdir(parents=True)
    (tmp_path / ".b.part" / "lib" / "stale.so").write_bytes(b"x")
    (tmp_path / ".b.lock").write_bytes(b"")
    compile_run(run, out, WANTED, tools=Stand().tools())
    assert "lib/stale.so" not in bytes_of(out)
    assert beside(out) == []


def test_a_bundle_that_was_being_replaced_when_the_run_was_killed_is_put_back(run, tmp_path):
    out = tmp_path / "b"
    compile_run(run, out, WANTED, tools=Stand().tools())
    before = bytes_of(out)
    out.rename(tmp_path / ".b.old")
    with pytest.raises(ConfigError, match="holds a bundle already"):
        compile_run(run, out, WANTED, tools=Stand().tools())
    assert bytes_of(out) == before


def test_two_runs_do_not_write_one_bundle(run, tmp_path):
    out, stand = tmp_path / "b", Stand()

    def compile_block(*args, **options):
        with pytest.raises(ConfigError, match="another nas compile is writing"):
            compile_run(run, out, WANTED, tools=Stand().tools())
        return Stand.compile_block(stand, *args, **options)

    stand.compile_block = compile_block
    compile_run(run, out, WANTED, tools=stand.tools())
    assert Bundle.open(out).problems() == []


def file_there(out):
    out.write_text("x")


def another_folder(out):
    out.mkdir()
    (out / "thesis.tex").write_text("x")


def web_app(out):
    out.mkdir()
    (out / "manifest.json").write_text('{"name": "app"}')


def link_to_folder(out):
    (out.parent / "real").mkdir()
    out.symlink_to(out.parent / "real")


@pytest.mark.parametrize("there", [file_there, another_folder, web_app, link_to_folder])
def test_what_is_no_bundle_is_never_replaced(run, tmp_path, there):
    out, stand = tmp_path / "b", Stand()
    there(out)
    with pytest.raises(ConfigError, match="pass another --out"):
        compile_run(run, out, WANTED, overwrite=True, tools=stand.tools())
    assert stand.compiled == []
    assert out.exists()


def test_a_bundle_with_files_of_others_in_it_is_not_replaced(run, tmp_path):
    out = tmp_path / "b"
    compile_run(run, out, WANTED, tools=Stand().tools())
    (out / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"'notes\.txt', which no bundle has"):
        compile_run(run, out, WANTED, overwrite=True, tools=Stand().tools())


def test_an_empty_folder_is_taken(run, tmp_path):
    (tmp_path / "b").mkdir()
    compile_run(run, tmp_path / "b", WANTED, tools=Stand().tools())
    assert Bundle.open(tmp_path / "b").problems() == []
