"""Calling a compiled block from Python, with TVM's runtime library and with ours."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import msgspec
import numpy as np
import pytest
import tiny_blocks

from compile.machine_code.linking import runtime_library
from compile.targets import host
from modeltree.errors import ConfigError, DataError, FormatError, NasError
from runtime.execution.library import Library
from runtime.execution.native import open_runtime

KINDS = ("tvm", "shim")
SHAPES = {"shape_in": tiny_blocks.SHAPE, "shape_out": tiny_blocks.SHAPE}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """By kind of runtime library: (block, runtime library)."""
    made = {}
    for kind in KINDS:
        target = msgspec.structs.replace(host(), runtime=kind)
        folder = tmp_path_factory.mktemp(kind)
        name, content = runtime_library(target)
        (folder / name).write_bytes(content)
        (folder / "block.so").write_bytes(tiny_blocks.library(target))
        made[kind] = (folder / "block.so", folder / name)
    return made


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def x():
    return np.random.default_rng(3).standard_normal(tiny_blocks.SHAPE).astype(np.float32)


def in_a_process(files: dict, kind: str, code: str) -> str:
    """Run `code` in a fresh process where `open_block(threads)` gives the block; what it printed. Anything on
    standard error fails."""
    block, runtime = files[kind]
    before = (
        "import os, sys, threading, numpy as np\nfrom runtime.execution.library import Library\n"
        f"def open_block(threads, runtime={str(runtime)!r}):\n"
        f"    return Library({str(block)!r}, runtime=runtime, threads=threads, shape_in=(1, 64), shape_out=(1, 64))\n"
        "x = np.ones((1, 64), np.float32)\n"
    )
    done = subprocess.run([sys.executable, "-c", before + code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.strip()


@pytest.mark.parametrize("threads", [1, 2])
def test_a_block_gives_the_right_numbers(files, kind, threads, x):
    block, runtime = files[kind]
    library = Library(block, runtime=runtime, threads=threads, **SHAPES)
    for _ in range(20):
        np.testing.assert_allclose(library.run(x), tiny_blocks.expected(x, tiny_blocks.weights()), rtol=1e-6)


def test_the_result_is_the_callers_to_keep(files, kind, x):
    block, runtime = files[kind]
    library = Library(block, runtime=runtime, threads=1, **SHAPES)
    first = library.run(x)
    kept = first.copy()
    library.run(-x)
    np.testing.assert_array_equal(first, kept)


def test_out_is_filled_and_returned_whatever_its_strides(files, kind, x):
    block, runtime = files[kind]
    library = Library(block, runtime=runtime, threads=1, **SHAPES)
    out = np.zeros((1, 2 * tiny_blocks.SIZE), np.float32)[:, ::2]
    assert library.run(x, out) is out
    np.testing.assert_array_equal(out, library.run(x))


@pytest.mark.parametrize("offset", [0, 1, 3])
def test_any_strides_and_any_alignment_will_do(files, kind, offset, x):
    block, runtime = files[kind]
    library = Library(block, runtime=runtime, threads=1, **SHAPES)
    room = np.zeros(2 * tiny_blocks.SIZE + offset, np.float32)[offset:].reshape(1, -1)
    room[:, ::2] = x
    np.testing.assert_array_equal(library.run(room[:, ::2]), library.run(x))


@pytest.mark.parametrize(
    "wrong", [np.zeros((1, 65), np.float32), np.zeros(64, np.float32), np.zeros((1, 64)), np.zeros((1, 64), np.float16)]
)
def test_a_wrong_input_or_out_is_refused_by_shape_and_type(files, kind, wrong, x):
    block, runtime = files[kind]
    library = Library(block, runtime=runtime, threads=1, **SHAPES)
    with pytest.raises(DataError, match=r"input of .* it must be float32 \(1, 64\)"):
        library.run(wrong)
    with pytest.raises(DataError, match=r"out of .* it must be float32 \(1, 64\)"):
        library.run(x, wrong)


def test_what_the_block_itself_refuses_comes_with_its_message(files, kind):
    block, runtime = files[kind]
    library = Library(block, runtime=runtime, threads=1, shape_in=(1, 65), shape_out=(1, 64))
    for _ in range(2):
        with pytest.raises(NasError, match=r"block.so failed: \w+Error: .*shape"):
            library.run(np.zeros((1, 65), np.float32))


def test_callers_in_many_threads_each_get_their_own_result(files, kind):
    block, runtime = files[kind]
    library = Library(block, runtime=runtime, threads=2, **SHAPES)
    wrong = []

    def call(seed):
        x = np.random.default_rng(seed).standard_normal(tiny_blocks.SHAPE).astype(np.float32)
        wanted = tiny_blocks.expected(x, tiny_blocks.weights())
        for _ in range(100):
            if not np.allclose(library.run(x), wanted, rtol=1e-5):
                wrong.append(seed)

    callers = [threading.Thread(target=call, args=(seed,)) for seed in range(6)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(60)
    assert not [caller for caller in callers if caller.is_alive()]
    assert wrong == []


def test_both_runtime_libraries_live_in_one_process(files, x):
    results = []
    for kind in (*KINDS, *KINDS):
        block, runtime = files[kind]
        results.append(Library(block, runtime=runtime, threads=2, **SHAPES).run(x))
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_our_pool_has_as_many_threads_as_asked_for(files, threads):
    code = f"""
tasks = lambda: len(os.listdir("/proc/self/task"))
block = open_block({threads})
before = tasks()
block.run(x)
print(tasks() - before)
"""
    assert in_a_process(files, "shim", code) == str(threads - 1)


def test_a_call_uses_as_many_threads_as_asked_for_and_that_may_change(files, kind, monkeypatch):
    """With pauses between the calls, a thread that takes part falls asleep and is woken for every one of them. TVM by
    itself would use half of the processors on x86."""
    monkeypatch.setenv("TVM_THREAD_POOL_SPIN_COUNT", "1")
    code = """
import time

def sleeps():
    found = {}
    for task in os.listdir("/proc/self/task"):
        with open(f"/proc/self/task/{task}/status") as opened:
            found[task] = next(int(line.split()[1]) for line in opened if line.startswith("voluntary"))
    return found

for threads in (2, 1, 2):
    block = open_block(threads)
    block.run(x)
    time.sleep(0.2)
    before = sleeps()
    for _ in range(60):
        time.sleep(0.005)
        block.run(x)
    after = sleeps()
    print(sum(after[task] - before.get(task, 0) >= 5 for task in after))
"""
    # on a busy machine the caller may do all the work before the other thread is awake: then look again
    found = [in_a_process(files, kind, code).split()]
    while found[-1] != ["2", "1", "2"] and len(found) < 5:
        found.append(in_a_process(files, kind, code).split())
    assert found[-1] == ["2", "1", "2"], found


def test_a_caller_is_not_bound_to_processors_nor_the_environment_changed(files, kind):
    code = """
before = os.sched_getaffinity(0), dict(os.environ)
open_block(1).run(x)
open_block(2).run(x)
print((os.sched_getaffinity(0), dict(os.environ)) == before)
"""
    assert in_a_process(files, kind, code) == "True"


def test_more_threads_than_tvm_was_started_with_is_an_error_that_says_so(files):
    code = """
from modeltree.errors import ConfigError
from runtime.execution.native import open_runtime, _environment
from pathlib import Path
block = open_block(64)
with _environment(TVM_NUM_THREADS="1"):
    block._runtime._call(block._runtime._count)
try:
    block.run(x)
except ConfigError as error:
    print(error)
"""
    assert "TVM has 1 threads for this thread of ours, which used it before: 64 are wanted" in in_a_process(
        files, "tvm", code
    )


def test_neither_torch_nor_tvm_is_imported(files, kind):
    code = 'open_block(1).run(x); print({"torch", "tvm", "tvm_ffi"} & set(sys.modules))'
    assert in_a_process(files, kind, code) == "set()"


def test_without_a_runtime_library_named_the_installed_one_is_used(files):
    assert in_a_process(files, "tvm", "print(open_block(1, None).run(x).shape)") == "(1, 64)"


def test_a_forked_child_can_call_as_well(files):
    code = """
block = open_block(2)
wanted = block.run(x)
child = os.fork()
if child == 0:
    os._exit(0 if (block.run(x) == wanted).all() and len(os.listdir("/proc/self/task")) >= 2 else 1)
print(os.waitpid(child, 0)[1])
"""
    assert in_a_process(files, "shim", code) == "0"


def test_without_its_runtime_library_a_block_is_refused(files):
    code = """
from modeltree.errors import FormatError
try:
    open_block(1, None)
except FormatError as error:
    print(error)
"""
    assert "nas_" in in_a_process(files, "shim", code)


def test_a_file_that_is_not_there_or_not_a_block_is_refused_by_name(files, kind, tmp_path):
    runtime = files[kind][1]
    with pytest.raises(DataError, match=r"no library .*nowhere\.so"):
        Library(tmp_path / "nowhere.so", runtime=runtime, **SHAPES)
    junk = tmp_path / "junk.so"
    junk.write_bytes(b"junk")
    with pytest.raises(FormatError, match=r"junk\.so cannot be loaded"):
        Library(junk, runtime=runtime, **SHAPES)
    with pytest.raises(FormatError, match="__tvm_ffi_run"):
        Library(files["shim"][1], runtime=runtime, **SHAPES)


@pytest.mark.parametrize("name", ["libnas_runtime.so", "libtvm_runtime.so"])
def test_a_runtime_library_that_is_not_there_is_refused_by_name(files, name):
    code = f"""
from modeltree.errors import ConfigError
try:
    open_block(1, "/nowhere/{name}")
except ConfigError as error:
    print(error)
"""
    assert f"there is no /nowhere/{name}: pass the one in the bundle" in in_a_process(files, "shim", code)


@pytest.mark.parametrize("options", [{"threads": 0}, {"threads": 65}, {"shape_in": ()}, {"shape_out": (1, 0)}])
def test_options_out_of_range_are_refused(files, kind, options):
    block, runtime = files[kind]
    with pytest.raises(ConfigError, match=r"it must be within|every size must be"):
        Library(block, runtime=runtime, **(SHAPES | options))


def test_paths_may_be_text_and_relative(files, kind, monkeypatch, x):
    block, runtime = files[kind]
    monkeypatch.chdir(Path(block).parent)
    assert Library("block.so", runtime=runtime.name, threads=1, **SHAPES).run(x).shape == tiny_blocks.SHAPE


@pytest.mark.parametrize("given", [None, "7"])
def test_threads_of_tvms_pool_yield_seldom_before_they_sleep_unless_told(monkeypatch, given):
    monkeypatch.delenv("TVM_THREAD_POOL_SPIN_COUNT", raising=False)
    if given is not None:
        monkeypatch.setenv("TVM_THREAD_POOL_SPIN_COUNT", given)
    open_runtime(None)
    assert os.environ["TVM_THREAD_POOL_SPIN_COUNT"] == (given or "1000")
