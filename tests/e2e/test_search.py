"""One whole search on digits: what it leaves, and that the exported blocks are the network that was measured."""

import itertools
import json
import sys

import msgspec
import numpy as np
import pytest
import tiny_search
import torch
from html_pages import alone

from compile.program_file import read_program
from modeltree.errors import ConfigError
from modeltree.tree import decode_tree
from nas.cli import main
from nas.data import load_dataset
from nas.finalise.choice import TIE
from nas.names import FIXED, METHODS, OPTIMUM
from nas.search import search
from nas.training.base_network import with_unseen_search


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """A finished search, and the forest that its blocks were exported from."""
    folder, before, seen = tmp_path_factory.mktemp("e2e"), torch.get_num_threads(), {}
    import nas.finalise.select

    export_blocks = nas.finalise.select.export_blocks

    def spy(network, forest, branches, blocks):
        seen.setdefault("exports", []).append((forest, list(branches)))
        return export_blocks(network, forest, branches, blocks)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nas.finalise.select, "export_blocks", spy)
        told = []
        config = tiny_search.config(tiny_search.given(folder))
        searched = search(
            config, folder / "run", cache=folder / "cache", progress=lambda *what: told.append(what)
        )  # fmt: skip
    torch.set_num_threads(before)
    return searched, seen, told, config


@pytest.fixture(scope="module")
def test_images():
    data = with_unseen_search(load_dataset("digits", image_size=16), 0)
    return data.normalise(data.test.images), data.test.labels


def plain(summary):
    """As it comes back from a file, where a tuple is a list."""
    return json.loads(json.dumps(summary))


def run_blocks(searched, leaf, images):
    """Logits of the blocks on disk, one after the other along a path."""
    path = searched.tree.path(leaf.id)
    names = [node.block for node in path if node.block]
    if leaf.handover is not None:
        names.append(leaf.handover.block)
    with torch.no_grad():
        for name in names:
            images = read_program(searched.folder / "blocks" / f"{name}.pt2").module()(images)
    return images


def test_a_run_directory_holds_everything_and_no_leftovers(found):
    searched, _, _, _ = found
    names = {path.name for path in searched.folder.iterdir()}
    assert names == {
        "config.json",
        "base.pt2",
        "blocks",
        "events",
        "methods",
        "report.html",
        "stages",
        "summary.json",
        "tree.json",
    }
    assert not [path for path in searched.folder.rglob("*") if path.name.endswith(".part")]
    assert {path.name for path in (searched.folder / "events").iterdir()} == {"branch", "tree", "random", "egreedy"}


def test_the_tree_on_disk_is_the_one_returned(found):
    searched, _, _, config = found
    tree = decode_tree((searched.folder / "tree.json").read_bytes(), "tree.json")
    assert tree == searched.tree
    assert tree.base == config.base
    assert tree.places[0] == 0
    assert len(tree.places) == config.N + 1
    assert len(tree.leaves()) >= 2
    assert any(action.technique != "keep" for node in tree.nodes for action in node.actions)
    for mbps in (0.001, 0.03, 0.3, 100.0):
        assert list(tree.walk(lambda mbps=mbps: mbps))[-1].leaf is not None


def test_exported_blocks_chained_along_a_path_are_the_path_that_was_trained(found, test_images):
    searched, seen, _, _ = found
    images, _ = test_images
    answers = [run_blocks(searched, leaf, images) for leaf in searched.tree.leaves()]

    def same(forest, branches):
        """Whether the leaves answer as these paths do, each path at some leaf."""
        with torch.no_grad():
            expected = dict(forest.logits(images))
        near = [{b for b in branches if float((expected[b] - logits).abs().max()) < 1e-4} for logits in answers]
        return all(near) and set.union(*near) == set(branches)

    assert any(same(forest, branches) for forest, branches in seen["exports"])


def test_a_leafs_accuracy_is_what_its_blocks_on_disk_give_on_test_images(found, test_images):
    searched, _, _, _ = found
    images, labels = test_images
    for leaf in searched.tree.leaves():
        right = (run_blocks(searched, leaf, images).argmax(1).numpy() == labels).mean()
        assert leaf.leaf.accuracy_origin == "measured"
        assert leaf.leaf.accuracy == pytest.approx(100 * right)


def test_blocks_take_any_number_of_images_and_every_one_is_used(found):
    searched, _, _, _ = found
    trees = [decode_tree(path.read_bytes(), path.name) for path in (searched.folder / "methods").iterdir()]
    assert searched.tree in trees
    nodes = [node for tree in trees for node in tree.nodes]
    used = {node.block for node in nodes} | {node.handover.block for node in nodes if node.handover is not None}
    assert used - {""} == {path.stem for path in (searched.folder / "blocks").iterdir()}
    leaf = searched.tree.leaves()[0]
    for count in (1, 2, 7):
        assert run_blocks(searched, leaf, torch.zeros(count, 3, 16, 16)).shape == (count, 10)


def test_the_summary_has_a_row_a_method_and_says_where_numbers_come_from(found):
    searched, _, _, _ = found
    summary = json.loads((searched.folder / "summary.json").read_text())
    assert summary == plain(searched.summary)
    rows = {row["method"]: row for row in summary["methods"]}
    assert tuple(name for name in rows if name != OPTIMUM) == FIXED + METHODS
    origins = {name: row["accuracy_origin"] for name, row in rows.items()}
    assert {name for name, origin in origins.items() if origin == "predicted"} == {"random", "egreedy"}
    assert all(row["latency_origin"] == "predicted" for row in rows.values())
    assert rows["device_only"]["accuracy"] == rows["cloud_raw"]["accuracy"] == summary["base"]["accuracy"]
    leaves = searched.tree.leaves()
    for field in ("latency_ms", "accuracy"):
        expected = sum(leaf.leaf.chance * getattr(leaf.leaf, field) for leaf in leaves)
        assert rows["tree"][field] == pytest.approx(expected)
    # eq. 7: 100 (A - 50) / 50 + 300 (500 - T) / 500
    for row in rows.values():
        reward = 2 * (row["accuracy"] - 50) + 0.6 * (500 - row["latency_ms"])
        assert row["reward"] == pytest.approx(reward)


def test_what_was_searched_is_ordered_as_predicted(found):
    """Each search starts from what the one before found; nothing is above the optimum."""
    searched, _, _, _ = found
    rows = {row["method"]: row["predicted_reward"] for row in searched.summary["methods"]}
    assert rows["surgery"] <= rows["branch"] + 1e-9
    assert rows["branch"] <= rows["tree"] + 1e-9
    best = max(value for value in rows.values() if value is not None)
    assert best <= searched.summary["exact"]["reward"] + 1e-9
    assert 0 < searched.summary["exact"]["found_percent"] <= 100 + 1e-9


def test_where_the_search_falls_short_of_the_optimum_that_is_trained_and_measured_too(found):
    searched, _, _, _ = found
    summary, rows = searched.summary, {row["method"]: row for row in searched.summary["methods"]}
    assert rows["tree"]["predicted_reward"] < rows[OPTIMUM]["predicted_reward"] - TIE  # this search is a short one
    assert rows[OPTIMUM]["predicted_reward"] == pytest.approx(summary["exact"]["reward"])
    assert rows[OPTIMUM]["accuracy_origin"] == "measured"
    tree = decode_tree((searched.folder / "methods" / "optimum.json").read_bytes(), "optimum")
    assert (tree == searched.tree) == (summary["chosen"] == OPTIMUM)


def test_curves_never_fall(found):
    searched, _, _, _ = found
    for curve in searched.summary["curves"].values():
        assert len(curve) > 1
        for (count, best), (later, better) in itertools.pairwise(curve):
            assert count <= later
            assert best <= better + 1e-9


def test_progress_is_told_stage_by_stage_and_ends_whole(found):
    _, _, told, _ = found
    stages = list(dict.fromkeys(stage for stage, *_ in told))
    assert stages == ["library", "calibration", "endings", "search", "finetune"]
    last = {stage: (done, total) for stage, done, total, _ in told}
    assert all(done == total for stage, (done, total) in last.items() if stage != "search")
    assert all(0 <= done <= total for _, done, total, _ in told)


def test_the_report_is_one_file_that_fetches_nothing(found):
    searched, _, _, _ = found
    page = (searched.folder / "report.html").read_text()
    assert '<svg class="tree"' in page
    alone(page)


def test_show_prints_the_tree_the_comparison_and_json(found, monkeypatch, capsys):
    searched, _, _, _ = found

    def shown(*words):
        monkeypatch.setattr(sys, "argv", ["nas", "show", str(searched.folder), *words])
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code
        return capsys.readouterr().out

    text = shown()
    assert "sliced at places 0, " in text
    for name in ("device_only", "surgery", "egreedy", "exact"):
        assert name in text
    assert json.loads(shown("--json")) == plain(searched.summary)
    assert shown("--dot").startswith("digraph")


def stamps(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_a_finished_run_is_read_and_nothing_is_done_again(found, tmp_path, monkeypatch):
    searched, _, _, config = found

    def never(*_):
        raise AssertionError("the base network was prepared again")

    monkeypatch.setattr("nas.search.prepare", never)
    before, told = stamps(searched.folder), []
    cache = tmp_path / "cache"
    again = search(config, searched.folder, cache=cache, resume=True, progress=lambda *what: told.append(what))
    assert stamps(searched.folder) == before
    assert again.folder == searched.folder
    assert again.tree == searched.tree
    assert again.summary == plain(searched.summary)
    assert told == []
    assert not cache.exists()


def test_a_finished_run_is_neither_begun_again_nor_taken_for_another(found, tmp_path):
    searched, _, _, config = found
    before = stamps(searched.folder)
    with pytest.raises(ConfigError, match="holds a run already"):
        search(config, searched.folder, cache=tmp_path)
    with pytest.raises(ConfigError, match="seed was 0 and is 1"):
        search(msgspec.structs.replace(config, seed=1), searched.folder, cache=tmp_path, resume=True)
    assert stamps(searched.folder) == before


def test_another_search_uses_the_library_that_is_there(found, tmp_path):
    searched, _, _, config = found
    told = []
    faster = msgspec.structs.replace(config, rtt_ms=5.0, methods=("tree",), finetune_steps=0)
    other = search(
        faster, tmp_path / "run", cache=searched.folder.parent / "cache", progress=lambda *what: told.append(what)
    )  # fmt: skip
    assert [what[1:3] for what in told if what[0] == "library"] == [(19, 19)]
    assert not [what for what in told if what[0] == "calibration"]
    assert {row["method"] for row in other.summary["methods"]} >= {"device_only", "cloud_raw", "cloud_jpeg", "tree"}
    assert np.isfinite([row["reward"] for row in other.summary["methods"]]).all()
