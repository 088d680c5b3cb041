"""Closed and full standard streams, pipes that end early, and a locale without our characters."""

import os
import subprocess
import sys

import pytest

NAS = "from nas.cli import main; main()"


def shell(line, **environment):
    return subprocess.run(
        ["sh", "-c", line.replace("nas ", f"{sys.executable} -c '{NAS}' ")], capture_output=True, text=True,
        env=os.environ | environment,
    )  # fmt: skip


def test_a_full_disk_behind_standard_output_is_one_line_and_status_2():
    ended = shell("nas --help > /dev/full")
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert line == "nas: cannot write to standard output: No space left on device: free some space"


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&-"])
def test_closed_streams_are_no_error(closed):
    ended = shell(f"nas --help {closed}")
    assert ended.returncode == 0
    assert "Traceback" not in ended.stderr + ended.stdout


def test_an_error_with_standard_error_closed_does_not_go_to_standard_output():
    ended = shell("nas show nowhere 2>&-")
    assert (ended.returncode, ended.stdout) == (2, "")


def test_a_reader_that_goes_away_is_no_error_of_ours():
    ended = shell("nas --help | true")
    assert ended.stderr == ""


def test_an_ascii_locale_gets_ascii():
    text = ascii("├─ 3 × 3 → 5 µs …")
    code = f"from nas.cli.display.streams import prepare_streams; prepare_streams(); print({text})"
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True,
        env=os.environ | {"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
    )  # fmt: skip
    assert ended.stdout == b"+- 3 x 3 -> 5 us ...\n"
    assert ended.stderr == b""
