"""The run directory: begun once, gone on with, and read again."""

import json

import pytest

from modeltree.errors import ConfigError, FormatError
from nas.config import SearchConfig, decode_config, differences, encode_config
from nas.results.run_directory import Run, read_run

CONFIG = SearchConfig(base="nin", budget=10)


def test_a_new_run_holds_its_config(tmp_path):
    run = Run.start(tmp_path / "a" / "b", CONFIG, resume=False)
    assert decode_config(run.path("config.json").read_bytes(), "c") == CONFIG
    assert [path.name for path in run.folder.iterdir()] == ["config.json"]


def test_resume_of_nothing_begins(tmp_path):
    Run.start(tmp_path / "new", CONFIG, resume=True)
    assert (tmp_path / "new" / "config.json").exists()


def test_a_run_is_not_begun_twice_but_goes_on(tmp_path):
    Run.start(tmp_path, CONFIG, resume=False)
    with pytest.raises(ConfigError, match="holds a run already: pass --resume to go on, or another --out"):
        Run.start(tmp_path, CONFIG, resume=False)
    assert Run.start(tmp_path, CONFIG, resume=True).folder == tmp_path


def test_other_options_are_refused_by_name(tmp_path):
    Run.start(tmp_path, CONFIG, resume=False)
    with pytest.raises(ConfigError, match="seed was 0 and is 3, budget was 10 and is 20"):
        Run.start(tmp_path, SearchConfig(base="nin", budget=20, seed=3), resume=True)


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    for resume in (False, True):
        with pytest.raises(ConfigError, match="is not empty and not a run"):
            Run.start(tmp_path, CONFIG, resume=resume)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(ConfigError, match="is a file: pass a folder"):
        Run.start(tmp_path / "thesis.tex", CONFIG, resume=False)


@pytest.mark.parametrize("data", [b"{", b'{"colour": 1}', b'{"K": 0}', b'{"base": "\xff"}', b"[]", b'{"K": "2"}'])
def test_a_config_that_is_none_is_refused(tmp_path, data):
    (tmp_path / "config.json").write_bytes(data)
    with pytest.raises(FormatError, match=r"config\.json is not the config of a search"):
        Run.start(tmp_path, CONFIG, resume=True)


def test_a_config_comes_back_from_json():
    config = SearchConfig(K=3, N=1, rtt_ms=2.5, methods=("tree",), weights="w.safetensors")
    assert decode_config(encode_config(config), "c") == config
    assert differences(config, config) == {}


def test_a_stage_is_done_once(tmp_path):
    run, calls = Run.start(tmp_path, CONFIG, resume=False), []

    def work():
        calls.append(1)
        return (1, {"a": 2.5})

    assert run.stage("search", work) == run.stage("search", work) == [1, {"a": 2.5}]
    assert calls == [1]


def test_a_stage_that_fails_is_done_again(tmp_path):
    run = Run.start(tmp_path, CONFIG, resume=False)
    with pytest.raises(ZeroDivisionError):
        run.stage("search", lambda: 1 / 0)
    assert run.stage("search", lambda: 3) == 3


def test_a_damaged_stage_is_told(tmp_path):
    run = Run.start(tmp_path, CONFIG, resume=False)
    run.stage("search", lambda: 3)
    run.path("stages", "search.json").write_text("[1,")
    with pytest.raises(FormatError, match=r"search\.json is damaged: delete it and pass --resume"):
        run.stage("search", lambda: 3)


def test_only_a_finished_run_is_read(tmp_path):
    with pytest.raises(ConfigError, match="is not the folder of a search"):
        read_run(tmp_path / "nowhere")
    run = Run.start(tmp_path, CONFIG, resume=False)
    with pytest.raises(ConfigError, match="is not finished: pass --resume"):
        read_run(tmp_path)
    run.path("tree.json").write_text("{}")
    for text, why in (("{", "is not JSON"), ("[]", "not a summary"), (json.dumps({"version": 99}), "not a summary")):
        run.path("summary.json").write_text(text)
        with pytest.raises(FormatError, match=why):
            read_run(tmp_path)
    run.path("summary.json").write_text(json.dumps({"version": 1}))
    with pytest.raises(FormatError, match=r"tree\.json is not a model tree"):
        read_run(tmp_path)


def test_a_run_is_finished_once_tree_and_summary_are_there(tmp_path):
    run = Run.start(tmp_path, CONFIG, resume=False)
    found = [run.finished]
    for name in ("tree.json", "summary.json"):
        run.path(name).write_text("{}")
        found.append(run.finished)
    assert found == [False, False, True]


def test_a_run_that_is_given_up_at_once_leaves_no_folder_and_an_old_one_stays(tmp_path):
    run = Run.start(tmp_path / "new", CONFIG, resume=False)
    run.path("base.pt2").write_bytes(b"")
    run.abandon()
    assert not run.folder.exists()
    Run.start(tmp_path / "old", CONFIG, resume=False)
    Run.start(tmp_path / "old", CONFIG, resume=True).abandon()
    assert (tmp_path / "old" / "config.json").exists()
