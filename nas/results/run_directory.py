"""The folder a search leaves, and how an interrupted one goes on.

config.json     the frozen config
stages/         what each finished stage found, as JSON; a stage that is there is not done again
base.pt2        the base network, exported
blocks/         every block of the trees and every cloud rest, exported, named by content
methods/        the tree of every method that can be executed
actions.json    all exits, cuts and bits of the base network as a tree, to train policies on; not to be compiled
tree.json       the model tree
summary.json    methods, exact optimum, predictor, curves, timings
events/         TensorBoard
report.html
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from modeltree.errors import ConfigError, FormatError
from modeltree.files import write_bytes, write_text
from modeltree.tree import ModelTree, decode_tree
from nas.config import SearchConfig, decode_config, differences, encode_config
from nas.results.summary import SUMMARY_VERSION


class Run:
    """A run directory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.is_new = False

    @classmethod
    def start(cls, folder: Path, config: SearchConfig, *, resume: bool) -> "Run":
        """Open a run directory for a config, new or, with `resume`, one that was left unfinished.

        Raises
        ------
        ConfigError : it holds a run already and `resume` was not asked for, or a run of another config.
        """
        run = cls(folder)
        if folder.exists() and not folder.is_dir():
            raise ConfigError(f"{folder} is a file: pass a folder to --out")
        if run.path("config.json").exists():
            before = decode_config(run.path("config.json").read_bytes(), str(run.path("config.json")))
            if not resume:
                raise ConfigError(f"{folder} holds a run already: pass --resume to go on, or another --out")
            if changed := differences(before, config):
                told = ", ".join(f"{name} was {old} and is {new}" for name, (old, new) in changed.items())
                raise ConfigError(
                    f"{folder} is a run of another search ({told}): pass the same options or another --out"
                )
        else:
            if folder.exists() and any(folder.iterdir()):
                raise ConfigError(f"{folder} is not empty and not a run: pass another --out")
            write_bytes(run.path("config.json"), encode_config(config))
            run.is_new = True
        return run

    def abandon(self) -> None:
        """Remove what a run that has just begun has written, so that one refused for its input leaves no folder."""
        if self.is_new:
            for name in ("config.json", "base.pt2"):
                self.path(name).unlink(missing_ok=True)
            if not any(self.folder.iterdir()):
                self.folder.rmdir()

    @property
    def finished(self) -> bool:
        """Whether the search came to its end."""
        return self.path("summary.json").exists() and self.path("tree.json").exists()

    def path(self, *parts: str) -> Path:
        """A path inside the run directory."""
        return self.folder.joinpath(*parts)

    def stage(self, name: str, work: Callable[[], Any]) -> Any:
        """What a stage found: read if it was finished before, otherwise done now and written."""
        path = self.path("stages", f"{name}.json")
        if path.exists():
            try:
                return json.loads(path.read_text())
            except ValueError as error:
                raise FormatError(f"{path} is damaged: delete it and pass --resume") from error
        result = work()
        text = json.dumps(result)
        write_text(path, text)
        return json.loads(text)  # the same types, whether done now or read


def read_run(folder: Path) -> tuple[dict[str, Any], ModelTree]:
    """Summary and tree of a finished run.

    Raises
    ------
    ConfigError : no such folder, not a run, or not finished. FormatError : a file that is not what it should be.
    """
    if not (folder / "config.json").exists():
        raise ConfigError(f"{folder} is not the folder of a search: pass what --out was given")
    for name in ("summary.json", "tree.json"):
        if not (folder / name).exists():
            raise ConfigError(f"{folder} is not finished: pass --resume to nas search to go on")
    try:
        summary = json.loads((folder / "summary.json").read_text())
    except ValueError as error:
        raise FormatError(f"{folder / 'summary.json'} is not JSON: {error}") from error
    if not isinstance(summary, dict) or summary.get("version") != SUMMARY_VERSION:
        raise FormatError(f"{folder / 'summary.json'} is not a summary of version {SUMMARY_VERSION}: search again")
    return summary, decode_tree((folder / "tree.json").read_bytes(), str(folder / "tree.json"))
