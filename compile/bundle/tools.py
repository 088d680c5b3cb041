"""What does the work of compiling, and how it is imported: only when it is needed."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compile.targets import Target

RECKONED = "none"
"""As `tune`: no tile is timed, not even those for this machine."""


@dataclass(frozen=True, kw_only=True)
class Tools:
    """What does the work; `tools()` gives the real ones.

    load : a `.pt2` file's exported program.
    compile_block : (program, target, batch=, weights=, dump=) to a `compile.pipeline.CompiledBlock`.
    verify_block : (program, library's path, batch=, weights=) to a `compile.verify.Deviation` from torch.
    vouch_block : (program, target, batch=, weights=) to that of the target's stages as they run here.
    runtime_library : of a target, name and content; None where none is shipped.
    onnx_form : an exported program as ONNX.
    """

    load: Callable[[Path], Any]
    compile_block: Callable[..., Any]
    verify_block: Callable[..., Any]
    vouch_block: Callable[..., Any]
    runtime_library: Callable[[Target], tuple[str, bytes] | None]
    onnx_form: Callable[[Any], bytes]


def real_tools(cache: Path | None, tune: str | None = None) -> Tools:
    """TVM, our linker, torch; each imported when first called, since that takes seconds and the cache may spare it.

    tune : `rpc://host:port` of a device that times tiles for targets that do not run here; or `RECKONED`.
    """
    devices: dict[str, Any] = {}

    def device_for(target: Target) -> Any:
        if tune in (None, RECKONED) or target.runs_here:
            return None
        from compile.remote import RemoteDevice

        assert tune is not None
        if target.name not in devices:
            devices[target.name] = RemoteDevice(tune, target)
        return devices[target.name]

    def load(path: Path) -> Any:
        from compile.program_file import read_program

        return read_program(path)

    def compile_block(program: Any, target: Target, **options: Any) -> Any:
        from compile.pipeline import compile_block as work
        from compile.tuning import TuningCache

        tiles = TuningCache(cache / "tiles.json" if cache else None)
        made = work(
            program, target, cache=tiles, device=device_for(target), tune=tune != RECKONED, **options
        )  # fmt: skip
        tiles.save()
        return made

    def verify_block(*args: Any, **options: Any) -> Any:
        from compile.verify import verify_block as work

        return work(*args, **options)

    def vouch_block(*args: Any, **options: Any) -> Any:
        from compile.vouch import vouched as work

        return work(*args, **options)

    def runtime_library(target: Target) -> tuple[str, bytes] | None:
        from compile.machine_code.linking import runtime_library as work

        return work(target)

    def onnx_form(program: Any) -> bytes:
        from compile.bundle.onnx_form import onnx_form as work

        return work(program)

    return Tools(
        load=load, compile_block=compile_block, verify_block=verify_block, vouch_block=vouch_block,
        runtime_library=runtime_library, onnx_form=onnx_form,
    )  # fmt: skip
