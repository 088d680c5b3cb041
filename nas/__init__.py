"""Neural architecture search and model trees for device-edge-cloud inference: the public names.

Each is imported when it is asked for, so that `import nas` costs nothing and needs no torch.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compile.bundle import compile_run
    from modeltree.errors import NasError
    from modeltree.link.scenes import load_trace
    from modeltree.profiles import load_profile
    from nas.config import SearchConfig
    from nas.decisions.offloading.environment import DecisionEnv
    from nas.emulation.methods import emulate_methods
    from nas.report import write_report
    from nas.results.run_directory import read_run
    from nas.results.trees import read_methods
    from nas.results.verdict import verdict
    from nas.search import Searched, search

__all__ = [
    "DecisionEnv",
    "NasError",
    "SearchConfig",
    "Searched",
    "compile_run",
    "emulate_methods",
    "load_profile",
    "load_trace",
    "read_methods",
    "read_run",
    "search",
    "verdict",
    "write_report",
]

_HOMES = {
    "DecisionEnv": "nas.decisions.offloading.environment",
    "NasError": "modeltree.errors",
    "SearchConfig": "nas.config",
    "Searched": "nas.search",
    "compile_run": "compile.bundle",
    "emulate_methods": "nas.emulation.methods",
    "load_profile": "modeltree.profiles",
    "load_trace": "modeltree.link.scenes",
    "read_methods": "nas.results.trees",
    "read_run": "nas.results.run_directory",
    "verdict": "nas.results.verdict",
    "write_report": "nas.report",
}
"""Where each public name lives. `nas.search` is a module that can be called: docs/decisions/020."""


def __getattr__(name: str) -> Any:
    if name == "search":
        return import_module("nas.search")
    if name not in _HOMES:
        raise AttributeError(
            f"nas has no attribute {name!r}: it has {', '.join(__all__)}; import others from their files"
        )
    return getattr(import_module(_HOMES[name]), name)


if "gymnasium" in sys.modules:  # that was imported first, perhaps without our entry point
    import_module("nas.decisions.registration").register_environments()


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
