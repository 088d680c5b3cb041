"""A running session at the terminal: drawn seldom, whole, harmless; and `nas run` around it."""

import inspect
import io
import json
import math
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import exits_run
import msgspec
import numpy as np
import pytest
from bundles import tree
from PIL import Image
from rich.console import Console

from modeltree.link.bandwidth import BandwidthTypes
from nas.cli import main
from nas.cli.display.live import LAST, UPDATES_PER_S, Answers, LiveView, picture, quantiles, tree_lines
from runtime.remote.link_monitor import LinkWatch
from runtime.result import Parts, Result
from runtime.session import Session
from runtime.wire.transports.interface import Exchange

MB = 1_000_000


def result(*, nodes=(0, 3), by="cloud", why="handed over at place 4", types=(0, 1), mbps=(2.0, 7.0), met=True, **ms):
    parts = Parts(**({"device": 20.0, "encode": 1.0, "transfer": 30.0, "cloud": 2.0, "wait": 1.0, "total": 54.0} | ms))
    return Result(output=np.array([0.0, 1.0]), nodes=nodes, answered_by=by, why=why, types=types, mbps=mbps,
                  parts=parts, met=met)  # fmt: skip


def test_the_session_of_these_tests_is_asked_as_the_real_one():
    for name in ("infer", "measure", "__enter__", "__exit__"):
        real, fake = (inspect.signature(getattr(kind, name)) for kind in (Session, FakeSession))
        if name == "infer":
            real.bind(None, np.zeros((2, 2, 3), np.uint8), deadline_ms=5.0)
            assert set(fake.parameters) <= set(real.parameters) | {"image"}
        assert len(fake.parameters) <= len(real.parameters), name


class FakeSession:
    """What the view and `nas run` ask of a session; answers in turns as told."""

    def __init__(self, *, link=None, cloud=None, answers=None, model=None):
        self.device = SimpleNamespace(manifest=SimpleNamespace(tree=model or tree()))
        self.link, self.cloud = link, cloud
        self.answers, self.asked, self.measured = answers or (lambda n: result()), [], 0

    def measure(self):
        self.measured += 1
        return self.measured_ok

    measured_ok, unanswered = True, "nothing came"

    def infer(self, image, *, deadline_ms=None):
        self.asked.append((image.shape, deadline_ms))
        return self.answers(len(self.asked))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


def test_an_exit_that_was_left_through_is_marked_beside_the_other_forks():
    model = exits_run.tree()
    last = result(nodes=(0, exits_run.SURE), by="device", why="left through exit 1: entropy 0.1 is at most 0.3")
    lines = [line.plain for line in tree_lines(model, seen(last), ascii_only=True)]
    chosen = next(line for line in lines if line.lstrip().startswith("* exit"))
    assert "exit 1 if entropy <= " in chosen
    assert "head 1, 1 ms, ends here" in chosen
    assert sum("by a policy only" in line for line in lines) == 2


def cloud(*, failures=0, why=None):
    return SimpleNamespace(breaker=SimpleNamespace(failures=failures), why_not=lambda: why, calls=1)


def watched():
    """1 MB in a second and nothing else, half a second ago: 8 Mbit/s, less what the round trip takes."""
    now = [100.0]
    link = LinkWatch(tree().types, rtt_ms=0.0, clock=lambda: now[0])
    link.observe(Exchange(sent_bytes=MB, received_bytes=4, seconds=1.0, server_s=0.0))
    now[0] += 0.5
    return link


def seen(*results):
    found = Answers()
    for one in results:
        found.add(one, "cat.png")
    return found


def drawn(session, found, *, ascii_only=False, width=110):
    console = Console(file=io.StringIO(), width=width)
    console.print(picture(session, found, ascii_only=ascii_only))
    return console.file.getvalue()


def test_the_picture_says_what_is_known_of_link_path_and_answer():
    session = FakeSession(link=watched(), cloud=cloud())
    text = drawn(session, seen(result(by="device", nodes=(0, 2), met=False), result(mbps=(math.nan, 7.0))))
    assert "8 Mbit/s (" in text
    assert "0.5 s old, confidence" in text
    assert "0: below 5 Mbit/s" in text
    assert "1: at least 5 Mbit/s" in text
    assert "round trip 0 ms" in text
    assert "may be asked; 0 failures in a row, 1 calls under way" in text
    assert "● below 5 Mbit/s: block 1, 20 ms" in text
    assert "   ● at least 5 Mbit/s: place 4 to the cloud, 16.4 kB  x1" in text
    assert "   ○ below 5 Mbit/s: block 2, 60 ms, ends here  x1" in text
    assert "○ at least 5 Mbit/s: image to the cloud, 3.07 kB" in text
    assert "dog  by the cloud  cat.png" in text
    assert "handed over at place 4" in text
    assert "device 20.00" in text
    assert "54 ms" in text
    assert "median 54 ms, 95 % under 54 ms; 2 images: cloud 1, device 1, late 1" in text


def test_the_fork_that_came_next_stands_below_the_way_that_was_taken():
    lines = drawn(FakeSession(), seen(result())).splitlines()
    places = [next(i for i, line in enumerate(lines) if what in line) for what in ("block 1", "place 4", "image to")]
    assert places == sorted(places)


def test_a_failing_server_and_an_estimate_of_another_type_are_said():
    session = FakeSession(link=watched(), cloud=cloud(failures=3, why="the link failed, and no probe has passed since"))
    text = drawn(session, seen(result(types=(0,), mbps=(2.0,), nodes=(0, 2))))
    assert "the link failed, and no probe has passed since; 3 failures in a row" in text
    assert "the estimate is of type 1" in text


def test_without_a_server_or_an_estimate_it_says_so():
    text = drawn(FakeSession(link=LinkWatch(tree().types)), seen(result(types=(), mbps=())))
    assert "not known yet: the slowest type is assumed" in text
    assert "no estimate yet" in text
    assert "none was named" in text
    assert "none was named" in drawn(FakeSession(), seen(result(nodes=(), types=(), mbps=())))


def test_the_sparkline_is_a_share_of_the_highest_and_blank_where_nothing_was_known():
    found = seen(*(result(mbps=(value,)) for value in (0.0, math.nan, 4.0, 8.0)))
    assert "▁ ▅█  of 8 Mbit/s" in drawn(FakeSession(), found)
    assert "_ +@  of 8 Mbit/s" in drawn(FakeSession(), found, ascii_only=True)


def test_parts_fill_the_bar_by_their_shares_with_signs_of_their_own():
    bar = result(device=22.0, encode=0.0, transfer=11.0, cloud=11.0, wait=0.0, total=44.0)
    assert "d" * 22 + ">" * 11 + "c" * 11 + "  44 ms" in drawn(FakeSession(), seen(bar), ascii_only=True)
    nothing = result(device=0.0, encode=0.0, transfer=0.0, cloud=0.0, wait=0.0, total=0.0)
    assert "latency      0 ms" in drawn(FakeSession(), seen(nothing))


def test_what_a_bundle_or_a_server_says_cannot_steer_the_terminal():
    model = msgspec.structs.replace(tree(), classes=("cat", "\x1b[2Jdog\r\n"))
    text = drawn(FakeSession(model=model), seen(result(why="no answer: \x1b]0;owned\x07 [red]x[/red]")))
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "[red]x[/red]" in text


def test_the_picture_keeps_its_height_on_a_narrow_terminal():
    long = result(why="the cloud did not answer: " + "x" * 500)
    heights = {len(drawn(FakeSession(cloud=cloud()), seen(long), width=w).splitlines()) for w in (40, 80, 200)}
    assert len(heights) == 1


def test_many_types_are_not_all_listed():
    count = 12
    row = (1 / count,) * count
    types = BandwidthTypes(
        representative_mbps=tuple(range(1, count + 1)), edges_mbps=tuple(i + 0.5 for i in range(1, count)),
        transition=(row,) * count, initial=row,
    )  # fmt: skip
    nodes = tuple(
        msgspec.structs.replace(
            tree().nodes[1], id=i, fork=msgspec.structs.replace(tree().nodes[1].fork, types=(i,)),
            leaf=msgspec.structs.replace(tree().nodes[1].leaf, chance=1 / count),
        )
        for i in range(count)
    )  # fmt: skip
    model = msgspec.structs.replace(tree(), types=types, nodes=nodes)
    text = drawn(FakeSession(model=model), seen(result(nodes=(7,), types=(7,), mbps=(8.0,))))
    assert "● 7.5 to 8.5 Mbit/s: image to the cloud" in text
    assert "11 more" in text
    assert " 7: 7.5 to 8.5 Mbit/s" in text


def test_it_draws_no_more_often_than_it_says_whatever_the_rate():
    now = [0.0]
    console = Console(file=io.StringIO(), width=100, force_terminal=True)
    found = Answers()
    with LiveView(FakeSession(), found, console=console, clock=lambda: now[0]) as view:
        assert view.show() is False
        frames = 0
        for _ in range(1000):
            found.add(result(), "cat.png")
            frames += view.show()
            now[0] += 0.002
    assert 2 * UPDATES_PER_S - 1 <= frames <= 2 * UPDATES_PER_S + 1
    assert console.file.getvalue().rstrip().endswith("\x1b[?25h")


def test_quantiles_and_summary_come_by_hand():
    assert quantiles([3.0, 1.0, 2.0]) == (2.0, 3.0)
    assert quantiles(list(map(float, range(1, 101)))) == (50.5, 95.0)
    assert quantiles([7.0]) == (7.0, 7.0)
    assert Answers().summary() == "no image classified"
    found = seen(*(result(total=float(i), by="device" if i > 1 else "cloud") for i in range(1, 4)))
    assert found.summary() == "3 images classified: median 2 ms, 95 % under 3 ms; cloud 1, device 2, late 0"
    assert f"(of the last {LAST})" in seen(*[result()] * (LAST + 1)).summary()


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """`nas run` with a session that is made up; (status, out, error, session, arguments of `Session.open`)."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for name in ("a.png", "b.png"):
        Image.new("RGB", (8, 8)).save(pictures / name)

    def call(*words, session=None):
        session, opened = session or FakeSession(), {}

        def open_session(bundle, **rest):
            opened.update(rest, bundle=bundle)
            return session

        monkeypatch.setattr("runtime.session.Session.open", open_session)
        monkeypatch.setattr(sys, "argv", ["nas", "run", "bundle", str(pictures), *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        told = capsys.readouterr()
        return ended.value.code, told.out.splitlines(), told.err.splitlines(), session, opened

    return call


def stops_at(number):
    def answer(count):
        if count == number:
            raise KeyboardInterrupt
        return result()

    return FakeSession(answers=answer)


def test_images_are_classified_once_unless_said(run):
    status, out, error, session, opened = run()
    assert (status, len(out), error) == (0, 2, [])
    assert out[0].endswith("a.png: dog; cloud, 54.00 ms (device 20.00, encode 1.00, transfer 30.00, cloud 2.00); "
                           "handed over at place 4")  # fmt: skip
    assert session.asked == [((3, 32, 32), None)] * 2
    assert session.measured == 0
    assert opened["hedge"] is True


def test_rounds_are_summed_up_in_a_line_on_standard_error(run):
    status, out, error, session, _ = run("--repeat", 3, "--json", "--deadline-ms", 7)
    assert (status, len(out)) == (0, 6)
    assert json.loads(out[-1])["ms"]["total"] == 54.0
    assert error == ["nas: 6 images classified: median 54 ms, 95 % under 54 ms; cloud 6, device 0, late 0"]
    assert session.asked == [((3, 32, 32), 7.0)] * 6


def test_ctrl_c_ends_endless_rounds_well_and_others_with_130(run):
    status, out, error, _, _ = run("--repeat", 0, session=stops_at(6))
    assert (status, len(out), len(error)) == (0, 5, 1)
    assert error[0].startswith("nas: 5 images classified: ")
    status, _, error, _, _ = run("--repeat", 9, session=stops_at(1))
    assert status == 130
    assert error == ["nas: no image classified", "nas: interrupted: start it again in the same way to go on"]


def test_a_named_server_is_measured_once_and_its_silence_is_said(run):
    session = FakeSession()
    _, _, error, _, opened = run("--server", "grpc://cloud:8001", "--no-hedge", session=session)
    assert (session.measured, error, opened["hedge"], opened["server"]) == (1, [], False, "grpc://cloud:8001")
    session.measured_ok = False
    assert "grpc://cloud:8001 did not answer a probe" in run("--server", "grpc://cloud:8001", session=session)[2][0]
    session = FakeSession()
    run("--server", "grpc://cloud:8001", "--mode", "only-device", session=session)
    assert session.measured == 0


def test_images_start_no_closer_than_every_ms(run, monkeypatch):
    now = [0.0]
    waits = []

    def sleep(seconds):
        waits.append(seconds)
        now[0] += seconds

    monkeypatch.setattr(
        sys.modules["nas.cli.deployed.run"], "time", SimpleNamespace(perf_counter=lambda: now[0], sleep=sleep)
    )
    assert run("--every-ms", 500, "--repeat", 2)[0] == 0
    assert waits == [0.5] * 3


def test_live_without_a_terminal_prints_lines(run):
    status, out, error, _, _ = run("--live")
    assert (status, len(out)) == (0, 2)
    assert "by the" not in "".join(out)
    assert error == ["nas: 2 images classified: median 54 ms, 95 % under 54 ms; cloud 2, device 0, late 0"]


def test_live_and_json_do_not_go_together(run):
    status, out, error, _, _ = run("--live", "--json")
    assert (status, out) == (2, [])
    assert error == ["nas: --live draws and --json prints lines: pass one of them"]


def test_a_live_run_imports_no_torch(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    code = f"""
    import json, sys
    sys.path.insert(0, {str(Path(__file__).parents[2])!r})
    sys.argv = ["nas", "run", "bundle", {str(tmp_path / "a.png")!r}, "--live", "--server", "grpc://x"]
    import numpy as np
    from types import SimpleNamespace
    from bundles import tree
    from nas.cli import main
    from runtime.result import Parts, Result
    from runtime.session import Session

    class Fake:
        device, link, cloud = SimpleNamespace(manifest=SimpleNamespace(tree=tree())), None, None
        def measure(self): return True
        def infer(self, image, deadline_ms=None):
            return Result(output=np.zeros(2), nodes=(0, 3), answered_by="cloud", why="", types=(0, 1), mbps=(1.0, 2.0))
        def __enter__(self): return self
        def __exit__(self, *_): pass

    Session.open = lambda *_, **__: Fake()
    sys.stdout.isatty = lambda: True
    try:
        main()
    except SystemExit as end:
        assert not end.code, end.code
    heavy = ("torch", "tvm", "scipy", "matplotlib", "onnxruntime")
    print()
    print(json.dumps(sorted(m for m in sys.modules if m.split(".")[0] in heavy)))
    """
    code = textwrap.dedent(code)
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert "last answer" in found.stdout
    assert json.loads(found.stdout.splitlines()[-1]) == []
