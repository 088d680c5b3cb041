"""Train a network on a data set, and measure it.

Everything random follows from (seed, epoch), so a run that was killed and taken up again from its checkpoint ends with
the bits of one that was not, on the same machine with the same number of threads.
"""

import contextlib
import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from modeltree.errors import ConfigError, DataError, unknown
from nas.bases.weights import fingerprint
from nas.data.dataset import Dataset, ImageSet
from nas.jobs.batches import channels_together
from nas.jobs.checkpoint import load_state, save_state
from nas.jobs.progress import Progress
from nas.training.statistics import calibration_batches, recalibrate_

Criterion = Callable[[Any, torch.Tensor], torch.Tensor]
"""The loss of what a model returns for a batch, given its labels (n,)."""

Layout = Callable[[torch.Tensor], torch.Tensor]
"""The same images, (n, channels, height, width), otherwise in memory."""

OPTIMISERS = ("sgd", "adamw")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How to train: with a one-cycle rate, a quarter of which warms up.

    epochs : passes over `fit`.
    batch_size : images a step; what does not fill a batch waits for another epoch's order.
    lr : the rate's peak.
    weight_decay : on every parameter.
    label_smoothing : share of the target spread over all classes, 0 to below 1.
    flip, crop : mirror half the images; shift each by up to an eighth of its size, black behind.
    optimiser : `sgd` (with Nesterov momentum 0.9) or `adamw`, which transformers need.
    bf16 : multiply numbers of 16 bits on the CPU as on a GPU: 1.8 times as fast where the processor knows them
        (`multiplies_bf16`), slower elsewhere.
    seed : of order, augmentation and dropout.
    """

    epochs: int
    batch_size: int
    lr: float
    weight_decay: float = 5e-4
    label_smoothing: float = 0.1
    flip: bool = False
    crop: bool = True
    bf16: bool = False
    seed: int = 0
    optimiser: str = "sgd"

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)} but must be at least 1")
        if self.batch_size < 2:
            raise ConfigError("batch_size is 1 but must be at least 2: batch normalisation needs two images")
        if not (self.lr > 0 and math.isfinite(self.lr)):
            raise ConfigError(f"lr is {self.lr} but must be a positive number: 0.05 is usual")
        if not self.weight_decay >= 0:
            raise ConfigError(f"weight_decay is {self.weight_decay} but must not be negative: 5e-4 is usual")
        if not 0 <= self.label_smoothing < 1:
            raise ConfigError(f"label_smoothing is {self.label_smoothing} but must be in 0..1: 0.1 is usual")
        if self.optimiser not in OPTIMISERS:
            raise unknown("optimiser", self.optimiser, OPTIMISERS)
        if self.seed < 0:
            raise ConfigError(f"seed is {self.seed} but must not be negative")


def check_recipe(*, epochs: int | None, lr: float | None) -> None:
    """Refuse what `TrainConfig` would, before the images are there that the rest of a recipe follows from.

    Raises
    ------
    ConfigError : a number is out of range.
    """
    TrainConfig(epochs=1 if epochs is None else epochs, batch_size=2, lr=1.0 if lr is None else lr)


def recipe(
    dataset: Dataset, *, epochs: int | None = None, seed: int = 0, model: nn.Module | None = None
) -> TrainConfig:  # fmt: skip
    """What works for a data set of this size: few images many small steps, CIFAR-10 the usual 24 epochs.

    A `model` that normalises no batches but attends, or normalises layers, is a transformer: AdamW, and longer.
    """
    small = len(dataset.fit) < 5000
    if model is not None and _is_transformer(model):
        return TrainConfig(
            epochs=epochs if epochs is not None else 40, batch_size=64 if small else 128,
            lr=3e-3 if small else 1e-3, weight_decay=0.05, flip=dataset.flip, seed=seed, optimiser="adamw",
        )  # fmt: skip
    return TrainConfig(
        epochs=epochs if epochs is not None else 6 if small else 24,
        batch_size=64 if small else 128,
        lr=0.05 if small else 0.1,
        flip=dataset.flip,
        seed=seed,
    )


def _is_transformer(model: nn.Module) -> bool:
    kinds = [type(module) for module in model.modules()]
    batches = any(issubclass(kind, nn.modules.batchnorm._BatchNorm) for kind in kinds)
    return not batches and any(issubclass(kind, (nn.LayerNorm, nn.MultiheadAttention)) for kind in kinds)


def new_optimiser(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """As a config asks for, over all weights that may change."""
    weights = [p for p in model.parameters() if p.requires_grad]
    if config.optimiser == "adamw":
        return torch.optim.AdamW(weights, lr=config.lr, betas=(0.9, 0.99), weight_decay=config.weight_decay)
    return torch.optim.SGD(weights, lr=config.lr, momentum=0.9, nesterov=True, weight_decay=config.weight_decay)


def device_named(name: str) -> torch.device:
    """torch's device of that name, if this machine has it.

    Raises
    ------
    ConfigError : an unknown kind of device, or one that is not here.
    """
    try:
        place = torch.device(name)
        if place.type not in ("cpu", "cuda"):
            raise RuntimeError(f"{place.type} is not supported")
        torch.empty(1, device=place)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"torch cannot use device {name!r} here: pass cpu, or cuda where there is a GPU") from error
    return place


def multiplies_bf16() -> bool:
    """Whether this processor multiplies matrices of 16-bit numbers, many at once."""
    return bool(torch.cpu.get_capabilities().get("amx_bf16", False))


def train(
    model: nn.Module,
    dataset: Dataset,
    config: TrainConfig,
    *,
    criterion: Criterion | None = None,
    device: str = "cpu",
    checkpoint: Path | None = None,
    progress: Progress | None = None,
) -> nn.Module:
    """Train a copy of `model` on `dataset.fit` and return it on the CPU, in eval mode.

    Batch norms end with the statistics of the trained weights (`nas.training.statistics`).

    Parameters
    ----------
    criterion : of what the model returns; cross-entropy of logits unless said.
    checkpoint : file that takes the state after every epoch; if it exists, the run goes on from there.
    progress : told after every step.

    Raises
    ------
    ConfigError : the device is not here; the checkpoint is of another run; the loss is no longer a number.
    DataError : fewer than two images; a broken checkpoint.
    """
    if len(dataset.fit) < 2:
        raise DataError(f"{dataset.name} has {len(dataset.fit)} training images but must have at least 2: add images")
    place = device_named(device)
    student = copy.deepcopy(model).to(place).train()
    if config.bf16:  # the layout in which 16 bits are multiplied fastest
        student = student.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = new_optimiser(student, config)
    layout = _layout(student, dataset) if place.type == "cpu" else _as_it_is
    run = {**asdict(config), "data": dataset.fingerprint, "start": fingerprint(model)}
    first = _resume_(student, optimiser, run, checkpoint) if checkpoint and checkpoint.exists() else 0
    for epoch in range(first, config.epochs):
        with _seeded(config.seed, epoch, place):
            _epoch_(student, optimiser, dataset, config, epoch, criterion or cross_entropy(config), layout, progress)
        if checkpoint:
            state = {"run": run, "epochs_done": epoch + 1}
            save_state(checkpoint, {**state, "model": student.state_dict(), "optimiser": optimiser.state_dict()})
    recalibrate_(student, calibration_batches(dataset, place, config.seed))
    return student.to("cpu").to(memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]


def _resume_(student: nn.Module, optimiser: torch.optim.Optimizer, run: dict[str, Any], checkpoint: Path) -> int:
    """Take up the state in `checkpoint`; returns how many epochs it holds."""
    state = load_state(checkpoint)
    try:
        theirs = state["run"]
        differing = sorted(key for key in run.keys() | theirs.keys() if run.get(key) != theirs.get(key))
        if differing:
            raise ConfigError(
                f"checkpoint {checkpoint} is of another run (it differs in {', '.join(differing)}): "
                "delete it to start afresh, or pass what that run was given"
            )
        student.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        return int(state["epochs_done"])
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise DataError(f"{checkpoint} is not a checkpoint of a training: delete it to start afresh") from error


def _layout(student: nn.Module, dataset: Dataset) -> Layout:
    """How a network likes its images: channels together, unless it looks at the memory (`x.view`) and refuses that."""
    images = channels_together(dataset.normalise(dataset.fit.images[:2]))
    was_training = student.training
    try:
        with torch.no_grad():
            student.eval()(images)
    except RuntimeError:
        return _as_it_is
    finally:
        student.train(was_training)
    return channels_together


def _as_it_is(images: torch.Tensor) -> torch.Tensor:
    return images


def cross_entropy(config: TrainConfig) -> Criterion:
    """Of logits, smoothed as a config asks for."""
    return lambda logits, labels: nn.functional.cross_entropy(
        logits.float(), labels, label_smoothing=config.label_smoothing
    )


@contextlib.contextmanager
def _seeded(seed: int, epoch: int, place: torch.device) -> Iterator[None]:
    """torch's generators (for dropout) seeded for the epoch, and put back behind it."""
    with torch.random.fork_rng(devices=[place] if place.type == "cuda" else []):
        torch.manual_seed(seed * 100_003 + epoch)
        yield


def _epoch_(
    student: nn.Module,
    optimiser: torch.optim.Optimizer,
    dataset: Dataset,
    config: TrainConfig,
    epoch: int,
    criterion: Criterion,
    layout: Layout,
    progress: Progress | None,
) -> None:
    place = next(student.parameters()).device
    rng = np.random.default_rng([config.seed, epoch])
    order = rng.permutation(len(dataset.fit))
    batch = min(config.batch_size, len(order))
    steps = len(order) // batch
    for step in range(steps):
        done, total = epoch * steps + step, config.epochs * steps
        for group in optimiser.param_groups:
            group["lr"] = config.lr * one_cycle((done + 0.5) / total)
        chosen = np.sort(order[step * batch : (step + 1) * batch])
        images = augment(dataset.fit.images[chosen], rng, flip=config.flip, crop=config.crop)
        labels = torch.from_numpy(dataset.fit.labels[chosen]).to(place)
        with torch.autocast(place.type, torch.bfloat16, enabled=place.type == "cuda" or config.bf16):
            output = student(layout(dataset.normalise(torch.from_numpy(images).to(place))))
        loss = criterion(output, labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if progress:
            progress(done + 1, total, f"epoch {epoch + 1}/{config.epochs}")
    if not math.isfinite(loss.item()):
        raise ConfigError(f"the loss is {loss.item()} after epoch {epoch + 1}: pass a lower rate than {config.lr}")


def one_cycle(at: float) -> float:
    """Share of the peak rate at `at` of the way, 0..1: up on a line for a quarter, down on a half cosine to 0."""
    return at / 0.25 if at < 0.25 else 0.5 * (1 + math.cos(math.pi * (at - 0.25) / 0.75))


def augment(images: np.ndarray, rng: np.random.Generator, *, flip: bool, crop: bool) -> np.ndarray:
    """Mirror every second image or so, and shift each by up to an eighth of its size.

    Parameters
    ----------
    images : (n, channels, height, width) uint8.

    Returns
    -------
    New images of the same shape; what was outside is black.
    """
    n, _, height, width = images.shape
    each = np.arange(n)
    if crop:
        down, right = max(1, height // 8), max(1, width // 8)
        padded = np.pad(images, ((0, 0), (0, 0), (down, down), (right, right)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(2, 3))
        top, left = rng.integers(0, 2 * down + 1, n), rng.integers(0, 2 * right + 1, n)
        images = windows[each, :, top, left]
    if flip:
        mirrored = rng.integers(0, 2, (n, 1, 1, 1), dtype=np.uint8)
        images = np.where(mirrored, images[..., ::-1], images)
    return np.ascontiguousarray(images)


def accuracy(
    model: nn.Module, images: ImageSet, dataset: Dataset, *, batch_size: int = 256, device: str = "cpu"
) -> float:
    """Share of `images` whose highest logit is their label, in percent.

    The model is run in eval mode and left as it was.

    Raises
    ------
    DataError : no images.
    ConfigError : the device is not here.
    """
    if not len(images):
        raise DataError(f"{dataset.name} has no images to measure on: pass a set with some")
    place = device_named(device)
    judged = copy.deepcopy(model).to(place).eval()
    right = 0
    with torch.inference_mode():
        for start in range(0, len(images), batch_size):
            part = slice(start, start + batch_size)
            logits = judged(dataset.normalise(torch.tensor(images.images[part], device=place)))
            right += int((logits.argmax(1).cpu() == torch.from_numpy(images.labels[part])).sum())
    return 100.0 * right / len(images)
