"""Fine-tuning the paths that may win, all together, and taking it back where it did harm."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from modeltree.network import NetworkSpec
from nas.config import SearchConfig
from nas.data import Dataset
from nas.finalise.finetune import FinetuneConfig, Forest, finetune_, forest_seen
from nas.finalise.measurement import Batch, batches_of
from nas.jobs.batches import trained_at_once
from nas.jobs.progress import Progress
from nas.names import TRAINED
from nas.training.teacher import DistillationSet
from nas.treesearch.evaluator import PathOutcome, PlanPath

HOPELESS = 5.0
"""Points of reward (of 400) behind the best from which on a method is not trained."""

_SMALL_STEPS, _STEPS = 60, 200


def finetune_settings(config: SearchConfig, spec: NetworkSpec, dataset: Dataset) -> FinetuneConfig:
    """What a config says of fine-tuning; the number of steps by the size of the data unless said."""
    images = trained_at_once(spec, FinetuneConfig.batch_size)
    steps = config.finetune_steps
    usual = _SMALL_STEPS if dataset.small else _STEPS
    return FinetuneConfig(steps=usual if steps is None else steps, batch_size=images, seed=config.seed)


def contenders(own: Mapping[str, Mapping[PlanPath, float]], valued: Mapping[str, float]) -> list[PlanPath]:
    """Paths worth fine-tuning, without repeats: those of trained methods not predicted to be hopelessly behind.

    A branch that is far behind the tree is often hardly compressed: it would take most of the time and win nothing.

    Parameters
    ----------
    own : method -> its paths and their chances. valued : method -> its reward as the search values it.
    """
    worth = {name: valued[name] for name in TRAINED if name in own}
    least = max(worth.values()) - HOPELESS
    return list(dict.fromkeys(path for name, value in worth.items() if value > least for path in own[name]))


def train_contenders_(
    forest: Forest, untouched: Callable[[], Forest], paths: Sequence[PlanPath], before: Sequence[Sequence[float]],
    judged: Batch, examples: DistillationSet, settings: FinetuneConfig, checkpoint: Path, progress: Progress,
) -> None:  # fmt: skip
    """Fine-tune some paths of a forest in place, and keep that only if it helped them on the search images.

    untouched : makes the same forest as it was. before : per path of the forest, its outcome then.
    """
    finetune_(forest, examples, settings, paths=paths, checkpoint=checkpoint, progress=progress)
    earlier = {path: PathOutcome(*one) for path, one in zip(forest.paths, before)}
    if lost_accuracy(forest.paths, paths, earlier, forest_seen(forest, batches_of(judged, forest.at_once))):
        forest.load_state_dict(untouched().state_dict())


def lost_accuracy(
    chances: Mapping[PlanPath, float], paths: Sequence[PlanPath], before: Mapping[PlanPath, PathOutcome],
    after: Mapping[PlanPath, PathOutcome],
) -> bool:  # fmt: skip
    """Whether some paths, each weighted by its chance, are less accurate after than before."""
    return sum(chances[path] * (after[path].accuracy - before[path].accuracy) for path in paths) < 0
