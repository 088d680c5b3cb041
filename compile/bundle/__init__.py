"""From a run directory to a bundle: every block of the tree compiled for every target, and a manifest of it all.

docs/bundle.md specifies what is written, `modeltree.manifest` checks it, `runtime.execution.bundle` reads it.
"""

from compile.bundle.from_run import compile_run
from compile.bundle.run_files import executable_methods, read_tree
from compile.bundle.tools import Tools, real_tools
from compile.bundle.wanted import Wanted

__all__ = ["Tools", "Wanted", "compile_run", "executable_methods", "read_tree", "real_tools"]
