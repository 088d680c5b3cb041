"""Tools that stand in for the compiler: they name what they were asked for."""

from types import SimpleNamespace

from bundles import SHAPES

from compile.bundle import Tools, Wanted
from compile.targets import TARGETS
from compile.verify import Deviation

PI4, SERVER = TARGETS["pi4"], TARGETS["x86-64-v3"]


class Stand:
    """Stands in for the tools and counts what is asked of them; `stop` raises at that compilation."""

    def __init__(self, stop=None, error=KeyboardInterrupt):
        self.compiled, self.verified, self.loaded, self.stop, self.error = [], [], [], stop, error
        self.vouched = []

    def load(self, path):
        if not path.read_bytes().startswith(b"program"):
            raise ValueError("no archive")
        self.loaded.append(path.stem)
        return path.stem

    def compile_block(self, program, target, *, batch, weights, dump):
        if len(self.compiled) == self.stop:
            raise self.error("stopped")
        self.compiled.append((program, target.name, weights, batch))
        if dump is not None:
            dump.mkdir(parents=True)
        enters, leaves = SHAPES[program]
        return SimpleNamespace(
            library=f"{program} {target.name} {weights} {batch}".encode(), input_shape=(batch, *enters),
            output_shape=(batch, *leaves), weight_bytes=7, workspace_bytes=8, macs=9 * batch,
        )  # fmt: skip

    def verify_block(self, program, library, *, batch, weights):
        assert library.is_file()
        self.verified.append((program, weights, batch))
        return Deviation(1e-6, 1e-7)

    def vouch_block(self, program, target, *, batch, weights):
        self.vouched.append((program, target.name, weights, batch))
        return Deviation(2e-6, 2e-7)

    def tools(self):
        return Tools(
            load=self.load, compile_block=self.compile_block, verify_block=self.verify_block,
            vouch_block=self.vouch_block,
            runtime_library=lambda target: ("libtvm_runtime.so", b"runtime of " + target.name.encode()),
            onnx_form=lambda program: b"onnx of " + program.encode(),
        )  # fmt: skip


WANTED = Wanted(targets=[PI4], cloud_targets=[SERVER])


def bytes_of(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def beside(out):
    return sorted(path.name for path in out.parent.iterdir() if path.name.startswith("."))


def wishing(**changes):
    return Wanted(**{"targets": [PI4], "cloud_targets": [SERVER]} | changes)
