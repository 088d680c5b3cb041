"""Where there is no terminal, long work prints lines."""

import subprocess
import sys
import time

import pytest

from nas.cli.display.log import ProgressLog, duration, logged


class Clock:
    now_s = 0.0

    def __call__(self):
        return self.now_s


def test_a_line_says_stage_done_total_and_time_left():
    lines, clock = [], Clock()
    log = ProgressLog({"library": "variant library"}, lines.append, clock)
    log.line()
    log.progress("library", 0, 40, "distilling")
    clock.now_s = 30.0
    log.progress("library", 10, 40, "conv2 prune@0.5")
    log.line()
    clock.now_s = 90.0
    log.progress("search", 0, 100, "tree")
    assert lines == [
        "variant library: 0 of 40, distilling, 0 s so far",
        "variant library: 10 of 40, conv2 prune@0.5, 30 s so far, about 1:30 min left",
        "variant library: 10 of 40, conv2 prune@0.5, 1:30 min so far, about 4:30 min left",
        "search: 0 of 100, tree, 0 s so far",
    ]


def test_the_second_of_two_alike_is_timed_from_its_own_beginning():
    lines, clock = [], Clock()
    log = ProgressLog({}, lines.append, clock)
    log.progress("search", 300, 400, "branch 1")
    clock.now_s = 100.0
    log.progress("search", 1, 400, "branch 2")
    clock.now_s = 110.0
    log.progress("search", 200, 400, "branch 2")
    log.line()
    assert lines[-1] == "search: 200 of 400, branch 2, 10 s so far, about 10 s left"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (59.4, "59 s"), (59.6, "1:00 min"), (185, "3:05 min"), (3720, "1:02 h")]
)
def test_durations_are_written_as_people_read_them(seconds, text):
    assert duration(seconds) == text


def test_lines_come_although_nothing_is_reported():
    lines = []
    with logged({}, lines.append, every_s=0.02) as progress:
        progress("work", 1, 2, "")
        end = time.monotonic() + 20
        while len(lines) < 4 and time.monotonic() < end:
            time.sleep(0.01)
    assert len(lines) >= 4


def test_work_that_fails_ends_its_log():
    lines = []

    def work():
        with logged({}, lines.append, every_s=60) as progress:
            progress("work", 1, 2, "a")
            raise KeyError

    with pytest.raises(KeyError):
        work()
    assert [line.split(",")[0] for line in lines] == ["work: 1 of 2", "work: 1 of 2"]


def test_a_verb_without_a_terminal_writes_lines_and_no_control_characters(tmp_path):
    code = (
        "import sys; from nas.cli.display.progress import stages\nwith stages(quiet=False) as p: p('base', 1, 2, 'x')"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stderr.startswith("nas: base network: 1 of 2, x")
    assert "\x1b" not in ended.stderr
