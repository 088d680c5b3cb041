"""Linking: what the library for every target is, and is not."""

import ctypes
import platform
import shutil
import struct
import subprocess

import msgspec
import numpy as np
import pytest
import tiny_blocks

import compile.machine_code.linking as linking
import compile.machine_code.toolchain as toolchain
from compile.machine_code.elf import read_elf
from compile.machine_code.linking import EXPORTED, link, runtime_library, shim_library
from compile.targets import TARGETS, host
from modeltree.errors import ConfigError, FormatError
from modeltree.manifest import SHIM_NAME, TVM_NAME

HOST = host()
EVERY_TARGET = [*TARGETS.values(), HOST]


@pytest.fixture(params=EVERY_TARGET, ids=lambda target: target.name)
def target(request):
    return request.param


def test_a_library_is_for_its_machine_and_shows_one_function(target):
    found = read_elf(tiny_blocks.library(target))
    assert (found.machine, found.bits) == (target.architecture, 32 if target.name == "pi3" else 64)
    assert found.exported == {EXPORTED}


def test_a_library_is_stripped_and_position_independent(target):
    found = read_elf(tiny_blocks.library(target))
    assert not found.text_relocations
    assert not [name for name in found.sections if name == ".symtab" or name.startswith(".debug")]
    assert ".note.gnu.build-id" not in found.sections


def test_a_library_asks_for_the_runtime_library_of_its_target_and_nothing_else(target):
    found = read_elf(tiny_blocks.library(target))
    known = {"shim": {"nas_parallel_launch", "nas_alloc_workspace", "nas_free_workspace", "nas_raise_parts"},
             "tvm": {"TVMBackendParallelLaunch", "TVMBackendAllocWorkspace", "TVMBackendFreeWorkspace",
                     "TVMFFIErrorSetRaisedFromCStrParts"}}  # fmt: skip
    assert found.undefined == known[target.runtime]
    assert found.needed == ()


def test_libm_is_needed_only_when_called_and_by_the_name_it_has_there(target):
    found = read_elf(tiny_blocks.library(target, wave=True))
    assert found.needed == ("libm.so" if target.name == "phone" else "libm.so.6",)
    assert "sinf" in found.undefined


def test_the_same_input_gives_the_same_bytes(target):
    assert tiny_blocks.library(target, wave=True) == tiny_blocks.library(target, wave=True)


@pytest.mark.parametrize("size_bytes", [0, 1, 64, 100_003])
def test_constants_are_held_in_the_file_once_as_they_are(target, size_bytes):
    constants = np.random.default_rng(1).bytes(size_bytes)
    library = link(tiny_blocks.object_code(target), constants, target)
    if size_bytes > 1:
        assert library.count(constants) == 1
        assert library.index(constants) % 64 == 0  # segments are mapped page by page, so in memory too
    assert len(library) < size_bytes + 16_384


def test_no_segment_is_writable_and_executable(target):
    library = tiny_blocks.library(target)
    wide = read_elf(library).bits == 64
    (start,) = struct.unpack_from("<Q", library, 32) if wide else struct.unpack_from("<I", library, 28)
    size, count = struct.unpack_from("<2H", library, 54 if wide else 42)
    for at in range(start, start + size * count, size):
        kind, *_ = row = struct.unpack_from("<2I" if wide else "<8I", library, at)
        flags = row[1] if wide else row[6]
        assert kind != 1 or flags & 3 != 3


def test_object_code_of_another_machine_is_refused(target):
    other = TARGETS["pi3" if target.architecture != "arm" else "pi4"]
    with pytest.raises(FormatError, match=f"target {other.name} is {other.architecture}"):
        link(tiny_blocks.object_code(target), b"", other)


@pytest.mark.parametrize("junk", [b"", b"hello", b"\x7fELF\x02\x01" + bytes(20)])
def test_what_is_not_object_code_is_refused(junk):
    with pytest.raises(FormatError, match="ELF"):
        link(junk, b"", HOST)


@pytest.mark.parametrize("cut", [70, 600, 4000])
def test_object_code_cut_short_is_refused(cut):
    with pytest.raises((FormatError, ConfigError)):
        link(tiny_blocks.object_code(HOST)[:cut], b"", HOST)


def test_code_that_calls_what_no_device_has_is_refused_by_name():
    code = tiny_blocks.object_code(HOST, wave=True).replace(b"\0sinf\0", b"\0qqqq\0")
    with pytest.raises(FormatError, match="calls qqqq, which nothing on a device provides"):
        link(code, b"", HOST)


def test_code_without_the_entry_is_refused():
    code = tiny_blocks.object_code(HOST).replace(b"\0__tvm_ffi_run\0", b"\0__tvm_ffi_ran\0")
    with pytest.raises(FormatError, match="name the entry function run"):
        link(code, b"", HOST)


def test_the_linkers_own_message_is_passed_on():
    with pytest.raises(ConfigError, match=r"failed with status 1.*triple"):
        link(tiny_blocks.object_code(HOST), b"", msgspec.structs.replace(HOST, triple="x86_64-nonsense-elf-qq-linux"))


@pytest.mark.skipif(shutil.which("cc") is None, reason="apt-get install gcc")
@pytest.mark.skipif(platform.machine() != HOST.architecture, reason="cc makes libraries for this machine only")
def test_without_zig_the_machines_own_compiler_links_for_its_kind(monkeypatch):
    monkeypatch.setattr(toolchain, "_zig", lambda: None)
    found = read_elf(tiny_blocks.library(HOST, wave=True))
    assert found.exported == {EXPORTED}
    assert found.needed == ("libm.so.6",)
    assert tiny_blocks.library(HOST, wave=True) == tiny_blocks.library(HOST, wave=True)
    with pytest.raises(ConfigError, match="pip install ziglang"):
        tiny_blocks.library(TARGETS["pi3"])


def test_a_target_linked_by_cc_on_another_machine_is_refused():
    with pytest.raises(ConfigError, match="makes libraries for this machine only, or set its linker to lld"):
        tiny_blocks.library(msgspec.structs.replace(TARGETS["pi3"], linker="cc"))


def test_our_runtime_library_shows_its_own_names_only(target):
    found = read_elf(shim_library(target))
    assert found.machine == target.architecture
    assert found.soname == SHIM_NAME
    assert {name.partition("_")[0] for name in found.exported} == {"nas"}
    both = read_elf(shim_library(target, tvm_names=True)).exported
    assert both > found.exported
    assert "TVMBackendParallelLaunch" in both


def test_our_runtime_library_is_small_and_the_same_every_time(target):
    once = shim_library(target)
    assert once == shim_library(target)
    assert len(once) < 16_384


def test_targets_without_a_wheel_get_our_runtime_library():
    assert {name for name, one in TARGETS.items() if one.runtime == "shim"} == {"pi3", "phone"}
    assert runtime_library(TARGETS["pi3"]) == (SHIM_NAME, shim_library(TARGETS["pi3"]))


@pytest.mark.skipif(platform.machine() != "x86_64", reason="names this machine's kind")
def test_this_machines_kind_gets_the_installed_runtime_library():
    name, content = runtime_library(TARGETS["x86-64-v3"])
    assert name == TVM_NAME
    assert "TVMBackendParallelLaunch" in read_elf(content).exported


def test_a_target_that_tvm_has_no_wheel_for_is_told_of_the_shim():
    with pytest.raises(ConfigError, match="set its runtime to shim"):
        runtime_library(msgspec.structs.replace(TARGETS["phone"], runtime="tvm"))


def test_another_machines_runtime_library_is_downloaded_once(monkeypatch, tmp_path):
    import zipfile

    asked = []

    def download(wanted, machine, folder):
        asked.append((wanted, machine))
        with zipfile.ZipFile(folder / "a.whl", "w") as made:
            made.writestr(f"tvm/lib/{TVM_NAME}", b"content")
        return folder / "a.whl"

    monkeypatch.setenv("NAS_CACHE", str(tmp_path))
    monkeypatch.setattr(linking, "_download", download)
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    assert runtime_library(TARGETS["pi4"]) == runtime_library(TARGETS["pi5"]) == (TVM_NAME, b"content")
    assert [machine for _, machine in asked] == ["aarch64"]


def test_when_the_wheel_cannot_be_had_the_message_says_what_to_do(monkeypatch, tmp_path):
    def offline(command, **_):
        return subprocess.CompletedProcess(command, 1, "", "ERROR: No matching distribution found")

    monkeypatch.setenv("NAS_CACHE", str(tmp_path))
    monkeypatch.setattr(linking.subprocess, "run", offline)
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    with pytest.raises(
        ConfigError, match="No matching distribution found: go online once, or set the target's runtime"
    ):
        runtime_library(TARGETS["pi4"])
    assert not list(tmp_path.rglob("*.so"))


def test_constants_are_aligned_and_read_only_when_loaded(tmp_path):
    """The loaded file's first segment is not writable, and holds the constants."""
    (tmp_path / SHIM_NAME).write_bytes(shim_library(HOST))
    path = tmp_path / "block.so"
    path.write_bytes(tiny_blocks.library(msgspec.structs.replace(HOST, runtime="shim")))
    ctypes.CDLL(str(tmp_path / SHIM_NAME), mode=ctypes.RTLD_GLOBAL)
    ctypes.CDLL(str(path))
    with open("/proc/self/maps") as opened:
        mapped = [line.split() for line in opened if line.rstrip().endswith(str(path))]
    offset = path.read_bytes().index(tiny_blocks.weights().tobytes())
    holders = []
    for addresses, flags, start, *_ in mapped:
        low, high = (int(part, 16) for part in addresses.split("-"))
        if int(start, 16) <= offset < int(start, 16) + high - low:
            holders.append((flags, low + offset - int(start, 16)))
    assert holders
    for flags, address in holders[:1]:
        assert "w" not in flags
        assert address % 64 == 0
