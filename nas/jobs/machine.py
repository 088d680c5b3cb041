"""This machine in words, for whatever is measured on it."""

import datetime
import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Iterable
from pathlib import Path


def processor() -> str:
    """The CPU's model as Linux names it, and how many of its cores there are."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(models)} cores of {models[0]}" if models else f"{os.cpu_count()} cores of {platform.processor()}"


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Installed versions by name; what is not installed is left out."""
    found = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def today() -> str:
    """The date in UTC, as ISO 8601 writes it."""
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def commit() -> str:
    """Of this program's repository, `-dirty` behind it where files differ; `unknown` where there is none."""
    here = Path(__file__).resolve().parent
    try:
        answer = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=here, capture_output=True, text=True, timeout=5, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return answer.stdout.strip()


def load_average() -> float:
    """Over the last minute: what else runs here."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
