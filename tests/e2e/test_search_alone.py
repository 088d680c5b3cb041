"""A search needs what the extra `search` installs, and nothing else: that is all that `make demo` has."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_search

from modeltree.tree import decode_tree

OTHERS = ("tvm", "onnx", "onnxruntime", "onnxscript", "openvino", "grpc", "prometheus_client", "cv2")

PROGRAM = f"""
import importlib.machinery, json, sys
from pathlib import Path

find = importlib.machinery.PathFinder.find_spec


def find_spec(name, path=None, target=None):
    return None if name.partition(".")[0] in {OTHERS!r} else find(name, path, target)


importlib.machinery.PathFinder.find_spec = find_spec
import msgspec
import tiny_search
from nas.search import search

config = msgspec.structs.replace(tiny_search.config(json.loads(sys.argv[1])), budget=10, finetune_steps=0)
search(config, Path(sys.argv[2]) / "run", cache=Path(sys.argv[2]) / "cache")
print(sorted(set({OTHERS!r}) & set(sys.modules)))
"""


VERB = """
import importlib.machinery, sys

lacking, find = sys.argv[1], importlib.machinery.PathFinder.find_spec


def find_spec(name, path=None, target=None):
    return None if name.partition(".")[0] == lacking else find(name, path, target)


importlib.machinery.PathFinder.find_spec = find_spec
from nas.cli import main

sys.argv = ["nas", *sys.argv[2:]]
main()
"""


@pytest.mark.parametrize(
    ("package", "extra", "words"),
    [("tvm", "compile", ["profile", "--out", "here.json"]), ("torch", "search", ["search"])],
)
def test_a_verb_that_lacks_a_package_says_in_a_line_what_brings_it(tmp_path, package, extra, words):
    said = subprocess.run(
        [sys.executable, "-c", VERB, package, *words], capture_output=True, text=True, cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    assert (said.returncode, said.stdout) == (2, "")
    assert said.stderr.splitlines() == [
        f"nas: {package} is not installed: pip install 'nas-modeltree[{extra}]', or -e '.[{extra}]' in a clone"
    ]
    assert not list(tmp_path.iterdir())


def test_a_search_needs_its_own_extra_alone(tmp_path):
    options = json.dumps(tiny_search.given(tmp_path))
    said = subprocess.run(
        [sys.executable, "-c", PROGRAM, options, str(tmp_path)], capture_output=True, text=True,
        cwd=Path(tiny_search.__file__).parent,
    )  # fmt: skip
    assert said.returncode == 0, said.stderr[-2000:]
    assert said.stdout.split("\n")[-2] == "[]"
    assert decode_tree((tmp_path / "run" / "tree.json").read_bytes(), "tree.json").leaves()
