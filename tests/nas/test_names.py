"""The names on the command line are the names that the code knows, and every list of methods is read off one table."""

import operator

import pytest

from nas.config import SearchConfig
from nas.jobs.executors import executor
from nas.names import (
    EXECUTORS,
    FIXED,
    METHOD_TABLE,
    METHODS,
    SIMPLER,
    STRATEGIES,
    TECHNIQUE_NAMES,
    TITLES,
    TRAINED,
    phrase,
)
from transforms import TECHNIQUES


def test_every_technique_has_its_name_in_the_same_order():
    assert tuple(TECHNIQUES) == TECHNIQUE_NAMES
    assert [technique.name for technique in TECHNIQUES.values()] == list(TECHNIQUE_NAMES)


def test_every_method_is_run_unless_told_otherwise():
    assert SearchConfig().methods == ("surgery", "branch", "tree", "random", "egreedy") == METHODS


def test_no_two_methods_share_a_name_a_title_a_phrase_or_a_rank():
    for field in ("name", "title", "phrase", "rank"):
        values = [getattr(method, field) for method in METHOD_TABLE]
        assert len(set(values)) == len(values), field
    assert sorted(method.rank for method in METHOD_TABLE) == list(range(len(METHOD_TABLE)))


def test_rows_of_a_summary_come_in_this_order():
    assert [method.name for method in METHOD_TABLE] == [
        "device_only", "cloud_raw", "cloud_jpeg", "surgery", "branch", "plain_tree", "tree", "optimum", "actions",
        "random", "egreedy",
    ]  # fmt: skip


def test_what_is_read_off_the_table():
    assert FIXED == ("device_only", "cloud_raw", "cloud_jpeg")
    assert STRATEGIES == ("device_only", "cloud_jpeg", "cloud_raw", "surgery", "branch", "tree")
    assert SIMPLER == ("device_only", "cloud_jpeg", "cloud_raw", "surgery", "branch", "plain_tree", "tree", "optimum")
    assert TRAINED == ("optimum", "tree", "plain_tree", "branch")
    assert list(TITLES) == [
        "device_only", "cloud_jpeg", "cloud_raw", "surgery", "branch", "actions", "plain_tree", "tree", "optimum",
        "random", "egreedy",
    ]  # fmt: skip


def test_a_phrase_stands_in_a_sentence_and_an_unknown_name_for_itself():
    assert phrase("tree") == "the tree"
    assert phrase("mine") == "mine"


@pytest.mark.parametrize("name", EXECUTORS)
def test_every_executor_runs_every_task_on_what_its_setup_returned(name):
    results = dict(executor(name, 2).run(operator.neg, operator.add, -10, [3, 1, -2]))
    assert results == {0: 13, 1: 11, 2: 8}
