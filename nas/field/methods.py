"""Which bundles take part in a field run, and what a slower device is asked of them. Pure but for reading manifests."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from modeltree.errors import ConfigError
from modeltree.manifest import Manifest
from modeltree.met import coding_of, predicted_ms
from modeltree.tree import ModelTree
from modeltree.units import s_from_ms
from nas.field.config import NO_SLOWDOWN, PROFILE
from nas.names import TITLES
from runtime.execution.bundle import Bundle, is_bundle


@dataclass(frozen=True, kw_only=True)
class FieldMethod:
    """A bundle and the name it goes by."""

    name: str
    folder: Path
    manifest: Manifest

    @property
    def tree(self) -> ModelTree:
        """What is walked."""
        return self.manifest.tree


def find_methods(paths: Sequence[Path]) -> list[FieldMethod]:
    """Every bundle, the simplest method first; named by its provenance, else by its folder.

    Raises
    ------
    ConfigError : there is none, two have one name, or they take different images or know different classes.
    """
    folders: dict[Path, None] = {}
    for path in paths:
        if is_bundle(path):
            folders[path] = None
            continue
        inside = sorted(child for child in path.iterdir() if is_bundle(child)) if path.is_dir() else []
        if not inside:
            raise ConfigError(f"{path} is no bundle and no folder of bundles: pass what nas compile wrote to --out")
        folders |= dict.fromkeys(inside)
    found: dict[str, FieldMethod] = {}
    for folder in folders:
        manifest = Bundle.open(folder).manifest
        name = manifest.provenance.method or folder.resolve().name
        if name in found:
            raise ConfigError(f"{folder} and {found[name].folder} are both of method {name}: pass one of them")
        found[name] = FieldMethod(name=name, folder=folder, manifest=manifest)
    if not found:
        raise ConfigError("there is no bundle to play: pass bundles, or a folder of them")
    first, *others = found.values()
    for one in others:
        if (one.tree.input_shape, one.tree.classes) != (first.tree.input_shape, first.tree.classes):
            raise ConfigError(
                f"{one.folder} and {first.folder} take different images or know different classes: pass bundles of one "
                "search"
            )
    order = list(TITLES)
    return sorted(found.values(), key=lambda one: order.index(one.name) if one.name in order else len(order))


def subject_of(methods: Sequence[FieldMethod]) -> FieldMethod:
    """The one at whose starts the oracle is asked: the tree, else the last."""
    return next((one for one in methods if one.name == "tree"), methods[-1])


def predicted_s(tree: ModelTree) -> dict[str, float]:
    """Block or rest, or a hand-over's coding -> seconds that the tree predicts for it on the device.

    What it does not know is left out.
    """
    handovers = [node.handover for node in tree.nodes if node.handover is not None]
    coding_ms = {coding_of(one): one.encode_ms for one in handovers if one.encode_ms}
    return {name: s_from_ms(ms) for name, ms in (predicted_ms(tree) | coding_ms).items()}


AS_PROFILE = "every block takes at least what the profile of"
"""How the text of a run begins in which the machine plays a profile."""


def slowdown_text(slowdown: str, tree: ModelTree) -> str:
    """What plays the device, for people; empty where nothing does."""
    if slowdown == NO_SLOWDOWN:
        return ""
    if slowdown == PROFILE:
        return f"{AS_PROFILE} {tree.device} predicts, the rest of it slept"
    return f"every block takes {float(slowdown):g} times what it takes here, the rest of it slept"
