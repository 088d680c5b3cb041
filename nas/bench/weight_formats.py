"""What each weight format costs in accuracy: a bundle's own libraries, run on test images along every path.

Every image goes through every path, block by block, and blocks that paths share run once. What is reported is the
accuracy expected over the paths' chances.
"""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import torch

from compile.program_file import read_program
from compile.targets import Target
from modeltree.errors import ConfigError
from modeltree.manifest import Manifest, VariantAccuracy
from modeltree.tree import ExitFork, ModelTree, Node, by_confidence, decode_tree
from modeltree.tree.emulate import sure_exits
from nas.config import SearchConfig
from nas.data import Dataset
from nas.quality.measure import TOP1, Measure
from nas.training.base_network import dataset_of, with_unseen_search
from nas.training.task import judged
from runtime.execution.library import Library
from runtime.selection.early_exit import entropy_nats


def test_part(run: Path, cache: Path) -> tuple[Dataset, Measure]:
    """The data set of a finished run, its test part as the run's report used it, and the measure of answers.

    Raises
    ------
    DataError : the images are not where the run found them.
    """
    config = msgspec.json.decode((run / "config.json").read_bytes(), type=SearchConfig)
    dataset = dataset_of(config, cache)
    dataset = dataset if config.weights is None or not dataset.classes else with_unseen_search(dataset, config.seed)
    tree = decode_tree((run / "tree.json").read_bytes(), str(run / "tree.json"))
    base = read_program(run / "base.pt2").module()
    return judged(dataset, base, config, tree.outputs, len(dataset.classes))


def measured_variants(
    manifest: Manifest, folder: Path, dataset: Dataset, images: int, measure: Measure = TOP1
) -> dict[str, VariantAccuracy]:  # fmt: skip
    """Accuracy of every weight format that this machine can run, on the first test images.

    Parameters
    ----------
    folder : where the manifest's files lie.
    images : how many; all there are if there are fewer.

    Raises
    ------
    ConfigError : no target of the bundle runs here with a batch of 1.
    """
    target = _runnable(manifest)
    count = min(images, len(dataset.test))
    truth = dataset.test.truth[:count]
    entering = dataset.preprocessing.normalised(np.asarray(dataset.test.images[:count]))
    entry = manifest.targets[target]
    runtime = None if entry.runtime is None else folder / entry.runtime.file
    found = {}
    for variant in entry.variants:
        chain = _Chain(manifest, folder, target, variant, runtime, entering)
        accuracy = 0.0
        for leaf, chance in _link_chances(manifest.tree):
            accuracy += chance * 100 * float(measure.scores(torch.from_numpy(chain.answers(leaf)), truth).mean())
        origin = f"measured on this target's libraries, {target}"
        found[variant] = VariantAccuracy(accuracy=min(accuracy, 100.0), images=count, origin=origin)
    return found


def _runnable(manifest: Manifest) -> str:
    for name, entry in manifest.targets.items():
        record = msgspec.convert(entry.record, Target)
        if record.runs_here and 1 in entry.batches and "device" in entry.roles:
            return name
    raise ConfigError(
        f"none of {', '.join(manifest.targets)} runs here with a batch of 1: add --target host to measure accuracy"
    )


def _link_chances(tree: ModelTree) -> Iterator[tuple[Node, float]]:
    """Leaves that the link leads to, each with its chance if nobody left by confidence on the way."""
    sure = sure_exits(tree)
    for end in tree.leaves():
        if not by_confidence(end) and end.leaf is not None and end.leaf.chance > 0:
            left = max((sure[node.id][1] for node in tree.path(end.id) if node.id in sure), default=0.0)
            yield end, end.leaf.chance / (1.0 - left)


class _Chain:
    """Runs paths of one weight format, remembering what comes out of each chain of blocks."""

    def __init__(
        self, manifest: Manifest, folder: Path, target: str, variant: str, runtime: Path | None, entering: np.ndarray
    ) -> None:
        self.manifest, self.folder, self.target, self.variant = manifest, folder, target, variant
        self.runtime = runtime
        self.known: dict[tuple[str, ...], np.ndarray] = {(): entering}

    def answers(self, leaf: Node) -> np.ndarray:
        """What comes of every image on the way to a leaf: the answer of the first head that is sure, or the leaf's."""
        found = self.logits(leaf)
        for node in reversed(self.manifest.tree.path(leaf.id)):
            head = self.manifest.tree.confident(node.id)
            if head is not None and isinstance(head.fork, ExitFork) and head.fork.entropy is not None:
                said = self.logits(head)
                sure = np.array([entropy_nats(row) <= head.fork.entropy for row in said])
                found = np.where(sure[:, None], said, found)
        return found

    def logits(self, leaf: Node) -> np.ndarray:
        """What the path to a leaf answers, the cloud's part included."""
        blocks = [node.block for node in self.manifest.tree.path(leaf.id) if node.block]
        if leaf.handover is not None:
            blocks.append(leaf.handover.block)
        for length in range(1, len(blocks) + 1):
            prefix = tuple(blocks[:length])
            if prefix not in self.known:
                self.known[prefix] = self._run(prefix[-1], self.known[prefix[:-1]])
        return self.known[tuple(blocks)]

    def _run(self, block: str, tensors: np.ndarray) -> np.ndarray:
        entry = self.manifest.blocks[block]
        library = next(
            one for one in entry.libraries if (one.target, one.variant, one.batch) == (self.target, self.variant, 1)
        )
        call = Library(
            self.folder / library.file, shape_in=(1, *entry.in_shape), shape_out=(1, *entry.out_shape),
            runtime=self.runtime,
        )  # fmt: skip
        return np.concatenate([call.run(tensor[None]) for tensor in tensors])
