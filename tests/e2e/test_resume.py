"""Killed at any moment and taken up again, a search ends with the same tree."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny_search

SCRIPT = Path(tiny_search.__file__)
KILLS = 3


def started(options, out, cache):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    words = [sys.executable, str(SCRIPT), json.dumps(options), str(out), str(cache)]
    return subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finished(process):
    _, error = process.communicate(timeout=120)
    assert process.returncode == 0, error


@pytest.mark.slow
def test_a_search_killed_at_random_moments_ends_with_the_same_tree(tmp_path):
    options = tiny_search.given(tmp_path)
    finished(started(options, tmp_path / "whole", tmp_path / "cache"))

    rng, killed = random.Random(0), 0
    for _ in range(KILLS):
        process = started(options, tmp_path / "killed", tmp_path / "other_cache")
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(rng.uniform(0.1, 1.2))  # a whole search takes a few seconds from here
        process.send_signal(signal.SIGKILL)
        process.communicate()
        killed += process.returncode == -signal.SIGKILL
    assert killed >= 2
    finished(started(options, tmp_path / "killed", tmp_path / "other_cache"))
    whole, again = ((tmp_path / name / "tree.json").read_bytes() for name in ("whole", "killed"))
    assert again == whole
    blocks = [{path.name for path in (tmp_path / name / "blocks").iterdir()} for name in ("whole", "killed")]
    assert blocks[0] == blocks[1]
