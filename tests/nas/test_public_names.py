"""What other people's scripts rely on: the verbs, their options, and the names that `nas` and `runtime` offer."""

import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer

import nas
import runtime
from nas.cli import app

BEFORE = json.loads((Path(__file__).parents[1] / "golden" / "command_line_v1.json").read_text())
"""Verb -> option, or argument in capitals -> default. An option may come; none may go or mean another default.

`policy train --agent` became None, which is `sac` for a tree as before, and another learner for streams of tasks.
`search --device` and `--trace` became what the demo forks on (decision 023).
"""

NAMES = {
    "DecisionEnv", "NasError", "SearchConfig", "Searched", "compile_run", "emulate_methods", "load_profile",
    "load_trace", "read_methods", "read_run", "search", "verdict", "write_report",
}  # fmt: skip


def verbs(command, name=""):
    if not hasattr(command, "commands"):
        return {name: command}
    return {
        key: leaf
        for word, one in command.commands.items()
        for key, leaf in verbs(one, f"{name} {word}".strip()).items()
    }


def options(command):
    """Option -> default, as JSON knows it."""
    named = {
        " / ".join([*one.opts, *one.secondary_opts])
        if one.param_type_name == "option"
        else one.name.upper(): one.default
        for one in command.params
    }
    return json.loads(json.dumps(named, default=str))


NOW = {name: options(command) for name, command in verbs(typer.main.get_command(app)).items()}


def test_no_verb_of_before_is_gone():
    assert not {
        "bench", "compile", "emulate", "field", "policy eval", "policy train", "profile", "record", "run", "search",
        "serve", "show", "train",
    } - set(NOW)  # fmt: skip


@pytest.mark.parametrize("verb", sorted(BEFORE))
def test_no_option_of_before_is_gone_or_means_another_default(verb):
    assert {name: NOW[verb].get(name, "gone") for name in BEFORE[verb]} == BEFORE[verb]


def test_nas_offers_these_names_each_where_it_says():
    assert set(nas.__all__) == NAMES
    for name in NAMES:
        assert callable(getattr(nas, name)), name
        assert name in dir(nas)


def test_no_public_name_but_search_is_also_a_room():
    rooms = {one.name for one in pkgutil.iter_modules(nas.__path__)}
    assert rooms & NAMES == {"search"}


def test_search_is_the_same_function_whoever_imported_what_before():
    from nas import search
    from nas.search import search as function

    assert search is nas.search
    assert search.search is function
    with pytest.raises(TypeError, match="out"):
        search(nas.SearchConfig())


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(AttributeError, match=r"no attribute 'serach': it has .*search"):
        _ = nas.serach


def test_a_config_is_made_without_torch_or_numpy():
    code = (
        "import sys, nas, runtime; nas.SearchConfig(K=3); dir(nas); dir(runtime);"
        "print(sorted({'torch', 'numpy', 'tvm', 'tvm_ffi', 'typer', 'rich', 'grpc'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_runtime_offers_a_session_and_its_parts_by_their_old_addresses():
    from runtime.bundle import Bundle
    from runtime.execution.bundle import Bundle as bundle
    from runtime.execution.library import Library as library
    from runtime.library import Library
    from runtime.session import Session

    assert runtime.Session is Session
    assert (Bundle, Library) == (bundle, library)


def test_help_loads_nothing_heavy():
    code = (
        "import sys, nas.cli;"
        "print(sorted({'torch', 'numpy', 'tvm', 'rich', 'grpc', 'PIL', 'scipy', 'sklearn'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
