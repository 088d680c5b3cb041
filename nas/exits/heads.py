"""Early exits: where they stand, how their heads are trained, and what they are worth.

A head (`transforms.exits.ExitHead`) stands at a legal cut. Beside a frozen network it learns from that network's logits
and the labels; trained together with the network, every exit learns from the labels, the earlier ones from the last as
well. Places are those of the exported network (`modeltree.network.Place`).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from modeltree.errors import DataError
from modeltree.files import write_bytes
from nas.bases import HEADS, read_weights
from nas.data.dataset import Dataset, ImageSet
from nas.jobs.progress import Progress
from nas.training.base_network import Prepared
from nas.training.teacher import DistillationSet, distillation_set
from transforms import Network, values_at
from transforms.exits import ExitHead

_TEMPERATURE = 3.0
_FROM_LAST = 0.5  # of an early exit's loss; the other half is from the labels
_BATCH = 250


def new_head(network: Network, place: int, seed: int) -> ExitHead:
    """A head for `place` with fresh weights that depend on place and seed alone."""
    spec = network.spec
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed * 100_003 + place)
        return ExitHead(spec.places[place].shape, spec.places[-1].shape[0])


def train_heads(
    prepared: Prepared, places: Sequence[int], folder: Path, seed: int, progress: Progress
) -> dict[int, ExitHead]:
    """Heads for a frozen base network, trained on its logits and the labels; read from `folder` where it has them.

    What the network gives at the places is computed once an image, for all heads together, and kept pooled.

    Raises
    ------
    DataError : the folder cannot be written.
    """
    classes = len(prepared.dataset.classes)
    files = {place: folder / f"exit_{place}_{classes}.safetensors" for place in places}
    heads = {place: new_head(prepared.network, place, seed).eval() for place in places}
    missing = [place for place in places if not _read_(heads[place], files[place])]
    if missing:
        examples = distillation_set(prepared, folder, seed, progress)
        labels = torch.from_numpy(np.tile(prepared.dataset.fit.labels[examples.chosen], len(examples.logits)))
        answers = torch.from_numpy(examples.logits.reshape(-1, classes))
        pools = {place: heads[place].pool for place in missing}
        pooled = _pooled(prepared.network, examples, pools, progress)
        for place in missing:
            _fit_(heads[place], pooled[place], answers, labels, 600 if prepared.small else 3000, seed)
            write_bytes(files[place], save(heads[place].state_dict()))
    return heads


def _read_(head: ExitHead, path: Path) -> bool:
    """Fill a head from a file; False if there is none or it is damaged."""
    try:
        head.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError):
        return False
    return True


def _pooled(
    network: Network, examples: DistillationSet, pools: Mapping[int, nn.Module], progress: Progress
) -> dict[int, torch.Tensor]:
    """What heads see of all examples in all ways: place -> (ways * n, channels)."""
    pooled: dict[int, list[torch.Tensor]] = {place: [] for place in pools}
    ways, n = examples.logits.shape[:2]
    for way in range(ways):
        for part in np.array_split(np.arange(n), -(-n // _BATCH)):
            for place, x in values_at(network, examples.take(part, way)[0], pools).items():
                pooled[place].append(pools[place](x))
            progress(way * n + int(part[-1]) + 1, ways * n, "features for exits")
    return {place: torch.cat(parts) for place, parts in pooled.items()}


def _fit_(
    head: ExitHead, pooled: torch.Tensor, answers: torch.Tensor, labels: torch.Tensor, steps: int, seed: int
) -> None:
    """Train a head's classifier in place on pooled features (n, channels); leaves it in eval mode."""
    optimiser = torch.optim.Adam(head.classifier.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=steps)
    rng = np.random.default_rng([seed, 3])
    head.train()
    for _ in range(steps):
        chosen = torch.from_numpy(rng.integers(0, len(pooled), 256))
        loss = distilled_loss(head.classifier(pooled[chosen]), labels[chosen], answers[chosen])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    head.eval()


def distilled_loss(
    logits: torch.Tensor, labels: torch.Tensor, teacher: torch.Tensor, label_smoothing: float = 0.0
) -> torch.Tensor:
    """Half from the labels, half from a teacher's softened answer [Hinton 2015].

    logits, teacher : (n, classes). labels : (n,).
    """
    student = torch.log_softmax(logits / _TEMPERATURE, 1)
    target = torch.softmax(teacher / _TEMPERATURE, 1)
    apart = nn.functional.kl_div(student, target, reduction="batchmean") * _TEMPERATURE**2
    own = nn.functional.cross_entropy(logits, labels, label_smoothing=label_smoothing)
    return (1 - _FROM_LAST) * own + _FROM_LAST * apart


def exit_logits(
    network: Network, heads: Mapping[int, nn.Module], images: ImageSet, dataset: Dataset
) -> tuple[np.ndarray, ...]:
    """Logits (n, classes) of every exit in the order of their places, the network's own last."""
    places = [*sorted(heads), len(network.spec.segments)]
    logits: dict[int, list[np.ndarray]] = {place: [] for place in places}
    for start in range(0, len(images), _BATCH):
        pixels = dataset.normalise(images.images[start : start + _BATCH])
        with torch.no_grad():
            for place, x in values_at(network, pixels, places).items():
                logits[place].append((heads[place](x) if place in heads else x).numpy())
    return tuple(np.concatenate(logits[place]) for place in places)


def exit_accuracies(
    network: Network, heads: Mapping[int, nn.Module], images: ImageSet, dataset: Dataset
) -> list[float]:
    """Top-1 accuracy in percent of every exit in the order of their places, the network's own last.

    Raises
    ------
    DataError : no images.
    """
    if not len(images):
        raise DataError(f"{dataset.name} has no images to measure on: pass a set with some")
    logits = exit_logits(network, heads, images, dataset)
    return [100.0 * float((one.argmax(1) == images.labels).mean()) for one in logits]


def save_with_heads(model: nn.Module, heads: Mapping[int, nn.Module], path: Path) -> None:
    """Write a network and its heads (`exits.<place>.<parameter>`) to one safetensors file, whole or not at all."""
    state = dict(model.state_dict())
    for place, head in heads.items():
        state |= {f"{HEADS}{place}.{key}": value for key, value in head.state_dict().items()}
    write_bytes(path, save({key: value.detach().cpu().clone().contiguous() for key, value in state.items()}))


def load_heads(path: Path, network: Network) -> dict[int, ExitHead]:
    """The heads that a weights file holds beside the network's own weights, by place; {} if it holds none.

    Raises
    ------
    DataError : no such file, not safetensors, or heads that do not fit the network.
    """
    state, _ = read_weights(path)
    by_place: dict[str, dict[str, torch.Tensor]] = {}
    for key, value in state.items():
        if key.startswith(HEADS):
            place, _, name = key.removeprefix(HEADS).partition(".")
            by_place.setdefault(place, {})[name] = value
    heads: dict[int, ExitHead] = {}
    for written, weights in by_place.items():
        legal = written.isdecimal() and 0 < int(written) < len(network.spec.segments)
        if not legal or not all(torch.isfinite(value).all() for value in weights.values()):
            raise DataError(
                f"{path} has an exit at {written!r}, which is no place or not finite: train the exits again"
            )
        head = new_head(network, int(written), 0)
        try:
            head.load_state_dict(weights)
        except RuntimeError as error:
            raise DataError(f"{path} has an exit at {written} that does not fit: train the exits again") from error
        heads[int(written)] = head.eval()
    return dict(sorted(heads.items()))
