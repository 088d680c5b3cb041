"""Programs of others in virtual environments of their own, made once with pip and kept under $NAS_VENVS."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

VENVS = os.environ.get("NAS_VENVS")
needs_venv = [
    pytest.mark.venv,
    pytest.mark.skipif(
        VENVS is None, reason="set NAS_VENVS to a folder that keeps environments with packages from PyPI"
    ),
]
"""For `pytestmark`: the marker, and the skip that says how to get what it names."""


def environment(name: str, *packages: str) -> Path:
    """Python of an environment with these packages; skips the test where pip cannot get them."""
    assert VENVS is not None
    folder = Path(VENVS).absolute() / name
    python, mark = folder / "bin/python", folder / "packages.json"
    if not mark.exists() or json.loads(mark.read_text()) != list(packages):
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True, timeout=120)
        done = subprocess.run(
            [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages],
            capture_output=True, text=True, timeout=280,
        )  # fmt: skip
        if done.returncode:
            pytest.skip(f"pip cannot install {', '.join(packages)}: {done.stderr.strip()[-300:]}")
        mark.write_text(json.dumps(packages))
    return python
