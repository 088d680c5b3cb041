"""What is measured: networks with random weights, or the blocks of a run, in every form that an engine reads."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from modeltree.errors import ConfigError
from modeltree.files import write_bytes

if TYPE_CHECKING:
    from torch import nn
    from torch.export import ExportedProgram

_CLASSES = 10
_NOISE = 0.2
_IMAGES = 4


@dataclass(frozen=True, kw_only=True)
class Case:
    """One network or block, batch 1. Files lie in `folder`; x goes in, torch answers `expected`."""

    name: str
    folder: Path
    x: np.ndarray
    expected: np.ndarray

    @property
    def shape_in(self) -> tuple[int, ...]:
        return self.x.shape

    @property
    def shape_out(self) -> tuple[int, ...]:
        return self.expected.shape

    @property
    def program(self) -> Path:
        """The exported program."""
        return self.folder / f"{self.name}.pt2"

    @property
    def onnx(self) -> Path:
        """Its ONNX form."""
        return self.folder / f"{self.name}.onnx"

    def library(self, weights: str, threads: int) -> Path:
        """Our library of it."""
        return self.folder / f"{self.name}_{weights}_{threads}.so"


@dataclass(frozen=True, kw_only=True)
class Made:
    """What compiling a case gave. `macs` are those of the compiled kernels."""

    weight_bytes: int
    macs: int
    seconds: float


def base_cases(
    names: Iterable[str], folder: Path, *, image_size: int = 32, seed: int = 0, onnx: bool = True
) -> list[Case]:
    """Base networks with random weights (`random_network`): right for latency, meaningless otherwise.

    onnx : whether the ONNX forms are written, which peers read.
    """
    from transforms import export

    cases: list[Case] = []
    for name in names:
        network = random_network(name, image_size=image_size, seed=seed)
        title = _title(name, {case.name for case in cases})
        cases.append(case_of(title, export(network, (3, image_size, image_size)), folder, onnx=onnx))
    return cases


def random_network(base: str, *, image_size: int = 32, classes: int = _CLASSES, seed: int = 0) -> "nn.Module":
    """A base network whose numbers all take part in its answer, and stay of the size that trained ones have.

    Parameters that start out constant (scales of batch norm, biases, branches scaled by zero or by 1e-6) get noise;
    batch norms have the statistics of a few random images.
    """
    import torch

    from nas.bases import build

    network = build(base, num_classes=classes, image_size=image_size, seed=seed).eval()
    generator = torch.Generator().manual_seed(seed)
    norms = [module for module in network.modules() if isinstance(module, torch.nn.modules.batchnorm._BatchNorm)]
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.numel() > 1 and bool((parameter == parameter.flatten()[0]).all()):
                parameter.add_(_NOISE * torch.randn(parameter.shape, generator=generator))
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the plain mean over all that is seen
            norm.train()
        network(torch.randn(_IMAGES, 3, image_size, image_size, generator=generator))
    return network.eval()


def _title(base: str, taken: set[str]) -> str:
    """A name for a row and its files: of a file the function too, and a number where it is taken."""
    first, _, second = base.partition(":")
    title = f"{Path(first).stem}-{second}" if first.endswith(".py") else second or first
    title = title.replace("/", "-")
    number = 2
    unique = title
    while unique in taken:
        unique, number = f"{title}-{number}", number + 1
    return unique


def run_cases(run: Path, folder: Path, *, onnx: bool = True) -> list[Case]:
    """Every block of a run directory.

    Raises
    ------
    ConfigError : there are none.
    """
    from compile.program_file import read_program

    paths = sorted((run / "blocks").glob("*.pt2"))
    if not paths:
        raise ConfigError(f"there are no blocks in {run}: pass the folder of a finished search")
    return [case_of(path.stem[:8], read_program(path), folder, onnx=onnx) for path in paths]


def case_of(name: str, program: "ExportedProgram", folder: Path, *, onnx: bool = True) -> Case:
    """An exported program with its files in `folder`, and what torch answers on random numbers."""
    import torch

    from compile.bundle.onnx_form import onnx_form
    from compile.program_file import program_bytes

    (entering,) = (node for node in program.graph.nodes if node.name in program.graph_signature.user_inputs)
    shape = tuple(int(size) for size in entering.meta["val"].shape[1:])
    x = np.random.default_rng(0).standard_normal((1, *shape), np.float32)
    with torch.no_grad():
        expected = program.module()(torch.from_numpy(x)).numpy()
    case = Case(name=name, folder=folder, x=x, expected=expected)
    write_bytes(case.program, program_bytes(program))
    if onnx:
        write_bytes(case.onnx, onnx_form(program, batch=1))
    return case


class Compiler:
    """Compiles cases for this machine, in a process with so many threads: tiles are timed as they will be used.

    tune : whether they are timed at all; else they are reckoned.
    """

    def __init__(self, threads: int, tiles: Path | None, tune: bool = True) -> None:
        import msgspec

        from compile.targets import host
        from compile.tuning import TuningCache

        self.threads, self.tune = threads, tune
        self.target = msgspec.structs.replace(host(), threads=threads)
        self.tiles = TuningCache(tiles)

    def make(self, case: Case, weights: str) -> Made:
        """Write the case's library."""
        from compile.pipeline import compile_block
        from compile.program_file import read_program

        program = read_program(case.program)
        made = compile_block(program, self.target, weights=weights, cache=self.tiles, tune=self.tune)
        self.tiles.save()
        write_bytes(case.library(weights, self.threads), made.library)
        return Made(weight_bytes=made.weight_bytes, macs=made.macs, seconds=made.seconds)
