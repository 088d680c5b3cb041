"""TensorBoard curves of a search."""

import warnings
from collections.abc import Sequence
from pathlib import Path

from nas.treesearch.reinforce import Step


def write_events(folder: Path, method: str, curve: Sequence[Step]) -> None:
    """Reward, baseline, entropy and best so far of one method against episodes, in place of earlier ones."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tensorboard's own deprecations
        from torch.utils.tensorboard import SummaryWriter

    target = folder / method
    for old in target.glob("events.out.tfevents.*"):
        old.unlink()
    with SummaryWriter(str(target)) as writer:
        for step in curve:
            writer.add_scalar("reward/mean", step.mean, step.episodes)
            writer.add_scalar("reward/best", step.best, step.episodes)
            writer.add_scalar("reward/baseline", step.baseline, step.episodes)
            writer.add_scalar("entropy", step.entropy, step.episodes)
