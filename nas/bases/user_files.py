"""Python files of the user's, run for a network or a measure in them: only code that he trusts."""

import hashlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from modeltree.errors import ConfigError


def run_file(path: Path) -> ModuleType:
    """The file as a module of its own; its name keeps two files called model.py apart.

    Raises
    ------
    ConfigError : there is none, or it fails.
    """
    if not path.is_file():
        raise ConfigError(f"no file {path}: pass an existing path/to/file.py:factory")
    name = "nas_user_" + hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path} is not a Python file: pass path/to/file.py:factory")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickling look the module up by name
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise ConfigError(f"{path} cannot be imported, {reason_of(error)}: mend it") from error
    return module


def reason_of(error: BaseException) -> str:
    """The first line of an error, with its type."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
