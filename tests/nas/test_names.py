"""The names on the command line are the names that the code knows."""

import pytest

from nas.config import SearchConfig
from nas.jobs.executors import executor
from nas.names import ACTIONS, EXECUTORS, FIXED, METHODS, PLAIN_TREE, TECHNIQUE_NAMES
from nas.results.summary import METHODS as TITLES
from transforms import TECHNIQUES


def test_every_technique_has_its_name_in_the_same_order():
    assert tuple(TECHNIQUES) == TECHNIQUE_NAMES


@pytest.mark.parametrize("name", EXECUTORS)
def test_every_executor_can_be_made(name):
    assert executor(name, 1)


def test_every_method_is_run_unless_told_otherwise_and_has_a_title():
    assert SearchConfig().methods == METHODS
    assert set(TITLES) == {*FIXED, *METHODS, ACTIONS, PLAIN_TREE}
