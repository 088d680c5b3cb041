"""Another bundle takes over: nothing is lost, the one before stays for a while, and what is gone is unloaded."""

import os
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from bundles import FROM_FOUR, FROM_IMAGE
from engine_callers import Fake, alone, close, images, occupied, pair, until
from prometheus_client import generate_latest
from small_bundle import BATCHES, write_small_bundle

from modeltree.errors import ConfigError, FormatError
from runtime.server.engine.engine import BundleEngine, ModelEngine
from runtime.server.interface import UnknownModel


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_small_bundle(tmp_path_factory.mktemp("served") / "old")


@pytest.fixture(scope="module")
def newer(tmp_path_factory):
    """The same tree and hashes, but other weights behind the image."""
    return write_small_bundle(tmp_path_factory.mktemp("served") / "new", image_seed=1)


@pytest.fixture
def callers():
    with ThreadPoolExecutor(32) as pool:
        yield pool


def test_a_swap_under_load_loses_nothing_and_answers_are_of_one_bundle_or_the_other(folder, newer, callers):
    x = images(FROM_IMAGE, 16)
    old, new = (alone(one, FROM_IMAGE, x) for one in (folder, newer))
    same = images(FROM_FOUR, 16)
    kept = alone(folder, FROM_FOUR, same)
    assert np.abs(old - new).max() > 1e-2
    stop = threading.Event()
    with BundleEngine(folder) as engine:

        def ask(index):
            count = 0
            while not stop.is_set():
                at = (index + count) % 16
                found = engine.infer(FROM_IMAGE, x[at][None]).output[0]
                assert np.allclose(found, old[at], 1e-4, 1e-5) or np.allclose(found, new[at], 1e-4, 1e-5)
                close(engine.infer(FROM_FOUR, same[at][None]).output[0], kept[at])
                count += 1
            return count

        asked = [callers.submit(ask, index) for index in range(8)]
        for one in (newer, folder, newer):
            time.sleep(0.1)
            engine.swap(one)
        close(engine.infer(FROM_IMAGE, x).output, new)
        stop.set()
        assert min(one.result(30) for one in asked) > 0
        assert generate_latest(engine.metrics).decode().count('nas_swaps_total{outcome="ok"} 3') == 1


def test_a_model_of_equal_libraries_is_kept_over_a_swap(folder, newer):
    with BundleEngine(folder) as engine:
        before = dict(engine._models)
        engine.swap(newer)
        assert engine._models[FROM_FOUR] is before[FROM_FOUR]
        assert engine._models[FROM_IMAGE] is not before[FROM_IMAGE]


def test_a_bundle_put_where_the_old_one_was_is_the_one_that_answers(folder, newer, tmp_path):
    """The dynamic loader knows libraries by their path, and would give the old ones."""
    x, here = images(FROM_IMAGE, 3), tmp_path / "bundle"
    shutil.copytree(folder, here)
    with BundleEngine(here) as engine:
        close(engine.infer(FROM_IMAGE, x).output, alone(folder, FROM_IMAGE, x))
        here.rename(tmp_path / "away")
        shutil.copytree(newer, here)
        engine.swap()
        close(engine.infer(FROM_IMAGE, x).output, alone(newer, FROM_IMAGE, x))


def test_libraries_that_were_swapped_out_are_unloaded(folder, newer, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    shutil.copytree(folder, first)
    shutil.copytree(newer, second)

    def mapped(place):
        with open("/proc/self/maps") as opened:
            return {line.split("/")[-1].strip() for line in opened if f"{place}/" in line}

    with BundleEngine(first) as engine:
        assert len([name for name in mapped(first) if name.startswith(FROM_IMAGE)]) == len(BATCHES)
        engine.swap(second)
        assert not [name for name in mapped(first) if name.startswith(FROM_IMAGE)]
    assert not [name for name in mapped(tmp_path) if name.startswith((FROM_IMAGE, FROM_FOUR))]


def test_a_bundle_that_is_not_sound_is_refused_and_the_old_one_goes_on(folder, tmp_path):
    spoilt = tmp_path / "spoilt"
    shutil.copytree(folder, spoilt)
    file = next((spoilt / "lib/host").glob(f"{FROM_IMAGE}*.so"))
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    x = images(FROM_IMAGE, 3)
    with BundleEngine(folder) as engine:
        with pytest.raises(FormatError):
            engine.swap(spoilt)
        close(engine.infer(FROM_IMAGE, x).output, alone(folder, FROM_IMAGE, x))
        assert 'nas_swaps_total{outcome="refused"} 1' in generate_latest(engine.metrics).decode()


def test_models_that_are_gone_after_a_swap_end_their_work(callers):
    old, new = Fake("old"), Fake("new")
    with ModelEngine([old]) as engine:
        held = occupied(engine, old, callers)
        swapped = callers.submit(engine.replace, [new])
        until(lambda: "new" in engine.models)
        with pytest.raises(UnknownModel):
            engine.infer("old", pair(1.0))
        assert not swapped.done()
        assert not old.closed
        old.gate.set()
        swapped.result(10)
        assert old.closed
        np.testing.assert_array_equal(held[0].result(10).output, pair(0.0))


def test_models_of_the_bundle_before_stay_for_a_while_beside_the_new_ones():
    """A device that still runs the old bundle is answered; who asks for what both have gets the new one."""
    alone, both, other = Fake("alone"), Fake("both"), Fake("both")
    other.fingerprint = ("another",)
    with ModelEngine([alone, both], keep_old_s=0.3) as engine:
        engine.replace([other, Fake("new")])
        assert set(engine.models) == {"alone", "both", "new"}
        assert "nas_old_models 1" in generate_latest(engine.metrics).decode()
        assert both.closed
        for name in ("alone", "both", "new"):
            np.testing.assert_array_equal(engine.infer(name, pair(1.0)).output, pair(2.0))
        assert (len(both.sizes), len(other.sizes)) == (0, 1)
        until(lambda: alone.closed)
        assert set(engine.models) == {"both", "new"}
        with pytest.raises(UnknownModel):
            engine.infer("alone", pair(1.0))
        assert not other.closed


def test_the_next_swap_ends_the_grace_of_the_one_before():
    first, second, third = Fake("1"), Fake("2"), Fake("3")
    with ModelEngine([first], keep_old_s=60.0) as engine:
        engine.replace([second])
        engine.replace([third])
        assert (first.closed, second.closed) == (True, False)
        assert set(engine.models) == {"2", "3"}
    assert second.closed
    assert third.closed


def test_swapping_back_in_the_grace_takes_up_the_models_that_are_there():
    first, second, again = Fake("1"), Fake("2"), Fake("1")
    with ModelEngine([first], keep_old_s=0.3) as engine:
        engine.replace([second])
        engine.replace([again])
        until(lambda: second.closed)
        engine.infer("1", pair(1.0))
        assert first.sizes == [1]
        assert not first.closed


def test_an_old_model_ends_its_work_when_its_grace_is_over(callers):
    old = Fake("old")
    with ModelEngine([old], keep_old_s=0.2) as engine:
        held = occupied(engine, old, callers)
        engine.replace([Fake("new")])
        until(lambda: "old" not in engine.models)
        assert not old.closed
        old.gate.set()
        np.testing.assert_array_equal(held[0].result(10).output, pair(0.0))
        until(lambda: old.closed)


def test_a_grace_that_no_timer_can_wait_for_is_refused():
    with pytest.raises(ConfigError, match="keep_old_s"):
        ModelEngine([Fake()], keep_old_s=-1.0)


def test_memory_stays_where_it_is_under_load_and_swaps(folder, newer):
    """In a process of its own: this one has torch and TVM's compiler, whose memory moves by itself."""
    code = f"""
import gc, sys, threading
import numpy as np
from runtime.server.engine.engine import BundleEngine
from runtime.server.interface import Busy
def resident():
    gc.collect()
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmRSS")) / 1024
def load(count):
    def ask():
        for _ in range(count):
            try:
                engine.infer({FROM_IMAGE!r}, x)
            except Busy:
                pass
    asking = [threading.Thread(target=ask) for _ in range(8)]
    [one.start() for one in asking]; [one.join() for one in asking]
engine = BundleEngine({str(folder)!r}, max_requests=4)
x = np.zeros((3, 3, 32, 32), np.float32)
for other in ({str(newer)!r}, {str(folder)!r}):
    load(100); engine.swap(other)
before = resident()
for round in range(6):
    load(100); engine.swap(({str(newer)!r}, {str(folder)!r})[round % 2])
print(resident() - before)
engine.close()
print(sorted({{"torch", "tvm", "tvm_ffi"}} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=dict(os.environ)
    )
    assert done.returncode == 0, done.stderr
    grown, imported = done.stdout.splitlines()
    assert float(grown) < 8
    assert imported == "[]"
