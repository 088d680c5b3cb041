"""Early exits: where they stand, how their heads are trained, and what they are worth.

A head (`transforms.exits.ExitHead`) stands at a legal cut. Beside a frozen network it learns from that network's logits
and the labels; trained together with the network, every exit learns from the labels, the earlier ones from the last as
well. Places are those of the exported network (`modeltree.network.Place`).
"""

import copy
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from modeltree.errors import ConfigError, DataError
from modeltree.files import write_bytes
from modeltree.network import NetworkSpec
from nas.bases import EXITS, HEADS
from nas.data.dataset import Dataset, ImageSet
from nas.lessons import Lessons, lessons
from nas.prepare import Prepared
from nas.train import Criterion, Progress, TrainConfig, train
from transforms import Network, analyse, export
from transforms.exits import ExitHead

_TEMPERATURE = 3.0
_FROM_LAST = 0.5  # of an early exit's loss; the other half is from the labels
_EARLY = 0.5  # weight of an early exit's loss; the last one's is 1
_MATCH = 1e-3  # of the largest number: more than what folding batch norm changes
_MATCH_IMAGES = 8
_BATCH = 250


def exit_places(network: Network, wanted: str, *, base: str) -> tuple[int, ...]:
    """Places of early exits, in rising order; neither the network's input nor its output.

    Parameters
    ----------
    wanted : `auto`, the base's own exits if it has any, otherwise the places nearest to a half and to three quarters of
        the MACs; `none`; or places, `4,7`.
    base : name of the network, as in `nas.bases.BASES`.

    Raises
    ------
    ConfigError : something else, or places where no exit can stand; lists those where one can.
    """
    spec = network.spec
    legal = range(1, len(spec.segments))
    if wanted == "none":
        return ()
    if wanted == "auto":
        return EXITS[base](spec) if base in EXITS else _halfway(spec)
    try:
        places = sorted({int(part) for part in wanted.split(",")})
    except ValueError:
        places = [-1]
    if not set(places) <= set(legal):
        written = ", ".join(f"{place} (after {spec.places[place].after})" for place in legal)
        raise ConfigError(f"exits are {wanted!r} but must be auto, none, or places like 4,7: legal are {written}")
    return tuple(places)


def _halfway(spec: NetworkSpec) -> tuple[int, ...]:
    """Half the way, and half the rest. What averaged maps say further in front is too little."""
    done = {place: spec.macs(0, place) / spec.macs() for place in range(1, len(spec.segments))}
    return tuple(sorted({min(done, key=lambda place: abs(done[place] - share)) for share in (1 / 2, 3 / 4) if done}))


def new_head(network: Network, place: int, seed: int) -> ExitHead:
    """A head for `place` with fresh weights that depend on place and seed alone."""
    spec = network.spec
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed * 100_003 + place)
        return ExitHead(spec.places[place].shape, spec.places[-1].shape[0])


class Crossing:
    """A frozen network, run part by part: images (n, 3, h, w) to what crosses at some places, {place: (n, *shape)}."""

    def __init__(self, network: Network, places: Iterable[int]) -> None:
        ends = sorted(set(places))
        self.parts = {stop: network.between(start, stop).eval() for start, stop in zip([0, *ends], ends)}

    def __call__(self, images: torch.Tensor) -> dict[int, torch.Tensor]:
        found, x = {}, images
        with torch.no_grad():
            for place, part in self.parts.items():
                found[place] = x = part(x)
        return found


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
        taught = lessons(prepared, folder, seed, progress)
        labels = torch.from_numpy(np.tile(prepared.dataset.fit.labels[taught.chosen], len(taught.logits)))
        answers = torch.from_numpy(taught.logits.reshape(-1, classes))
        pools = {place: heads[place].pool for place in missing}
        pooled = _pooled(prepared.network, taught, pools, progress)
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
    network: Network, taught: Lessons, pools: Mapping[int, nn.Module], progress: Progress
) -> dict[int, torch.Tensor]:
    """What heads see of all lessons in all ways: place -> (ways * n, channels)."""
    found: dict[int, list[torch.Tensor]] = {place: [] for place in pools}
    crossing = Crossing(network, pools)
    ways, n = taught.logits.shape[:2]
    for way in range(ways):
        for part in np.array_split(np.arange(n), -(-n // _BATCH)):
            for place, x in crossing(taught.take(part, way)[0]).items():
                found[place].append(pools[place](x))
            progress(way * n + int(part[-1]) + 1, ways * n, "features for exits")
    return {place: torch.cat(parts) for place, parts in found.items()}


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
        loss = _taught(head.classifier(pooled[chosen]), labels[chosen], answers[chosen])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    head.eval()


def _taught(
    logits: torch.Tensor, labels: torch.Tensor, teacher: torch.Tensor, label_smoothing: float = 0.0
) -> torch.Tensor:
    """Half from the labels, half from a teacher's softened answer [Hinton 2015]."""
    student = torch.log_softmax(logits / _TEMPERATURE, 1)
    target = torch.softmax(teacher / _TEMPERATURE, 1)
    apart = nn.functional.kl_div(student, target, reduction="batchmean") * _TEMPERATURE**2
    own = nn.functional.cross_entropy(logits, labels, label_smoothing=label_smoothing)
    return (1 - _FROM_LAST) * own + _FROM_LAST * apart


def train_jointly(
    model: nn.Module,
    dataset: Dataset,
    places: Sequence[int],
    config: TrainConfig,
    *,
    device: str = "cpu",
    checkpoint: Path | None = None,
    progress: Progress | None = None,
) -> tuple[nn.Module, dict[int, ExitHead]]:
    """Train copies of `model` and of new heads at `places` together, as `nas.train.train` trains a network.

    Every exit learns from the labels; the earlier ones, which count half, also from the last one's answers, which are
    not moved by that.

    Returns
    -------
    (network, heads by place), on the CPU, in eval mode.

    Raises
    ------
    ConfigError : no part of the model gives what crosses at a place, so that no head can be trained there; or what
        `train` refuses.
    GraphError : the model cannot be exported.
    """
    network = analyse(export(model, (3, dataset.image_size, dataset.image_size)))
    places = sorted(places)
    taps = _taps(model, network, places, dataset.normalise(dataset.fit.images[:_MATCH_IMAGES]))
    heads = {place: new_head(network, place, config.seed) for place in places}
    whole = train(
        _WithExits(model, heads, taps), dataset, config,
        criterion=_joint(config), device=device, checkpoint=checkpoint, progress=progress,
    )  # fmt: skip
    assert isinstance(whole, _WithExits)
    return whole.trunk, {place: whole.head(place) for place in places}


def _joint(config: TrainConfig) -> Criterion:
    def loss(outputs: list[torch.Tensor], labels: torch.Tensor) -> torch.Tensor:
        *early, last = (logits.float() for logits in outputs)
        total = nn.functional.cross_entropy(last, labels, label_smoothing=config.label_smoothing)
        for logits in early:
            total = total + _EARLY * _taught(logits, labels, last.detach(), config.label_smoothing)
        return total

    return loss


_Tap = tuple[str, int]  # (name of a submodule, which of its calls): where a place's tensor is made


class _WithExits(nn.Module):
    """A network and its heads as one module: (n, 3, h, w) to the logits of every exit, the last one behind."""

    def __init__(self, trunk: nn.Module, heads: Mapping[int, ExitHead], taps: Mapping[int, _Tap]) -> None:
        super().__init__()
        self.trunk = trunk
        self.heads = nn.ModuleDict({str(place): head for place, head in heads.items()})
        self.taps = dict(taps)

    def head(self, place: int) -> ExitHead:
        head = self.heads[str(place)]
        assert isinstance(head, ExitHead)
        return head

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        found: dict[int, torch.Tensor] = {}
        wanted = {tap: place for place, tap in self.taps.items()}

        def see(tap: _Tap, value: torch.Tensor) -> None:
            if tap in wanted:
                found[wanted[tap]] = self.head(wanted[tap])(value.clone())  # the next layer may work in place

        last = _watched(self.trunk, x, see, [name for name, _ in wanted])
        return [*(found[place] for place in sorted(self.taps)), last]


def _watched(
    model: nn.Module, x: torch.Tensor, see: Callable[[_Tap, torch.Tensor], None], names: Iterable[str]
) -> torch.Tensor:
    """`model(x)`; `see` is shown what the named parts of it return, in the order they end."""
    calls: Counter[str] = Counter()

    def hook(name: str) -> Callable[[nn.Module, object, object], None]:
        def on_return(module: nn.Module, _: object, value: object) -> None:
            if isinstance(value, torch.Tensor):
                see((name, calls[name]), value)
            calls[name] += 1

        return on_return

    handles = [model.get_submodule(name).register_forward_hook(hook(name)) for name in set(names)]
    try:
        result: torch.Tensor = model(x)
        return result
    finally:
        for handle in handles:
            handle.remove()


def _taps(model: nn.Module, network: Network, places: Sequence[int], images: torch.Tensor) -> dict[int, _Tap]:
    """The part of `model` that gives what crosses at each place, found by running both on some images.

    Raises
    ------
    ConfigError : there is none; names the places that have one.
    """
    inner = range(1, len(network.spec.segments))
    found: dict[int, _Tap] = {}
    values = Crossing(network, inner)(images)

    def see(tap: _Tap, value: torch.Tensor) -> None:
        for place in inner:
            if place not in found and _same(value, values[place]):
                found[place] = tap

    with torch.no_grad():
        _watched(copy.deepcopy(model).eval(), images, see, [name for name, _ in model.named_modules()])
    if lacking := [place for place in places if place not in found]:
        raise ConfigError(
            f"no module of the network returns what crosses at place {lacking[0]}, so that no exit can be trained "
            f"there: pass some of {', '.join(map(str, sorted(found)))}, or write that part as a module"
        )
    return {place: found[place] for place in places}


def _same(one: torch.Tensor, two: torch.Tensor) -> bool:
    return one.shape == two.shape and bool((one - two).abs().max() <= _MATCH * two.abs().max())


def exit_logits(
    network: Network, heads: Mapping[int, nn.Module], images: ImageSet, dataset: Dataset
) -> tuple[np.ndarray, ...]:
    """Logits (n, classes) of every exit in the order of their places, the network's own last; its parts as deployed."""
    places = [*sorted(heads), len(network.spec.segments)]
    crossing = Crossing(network, places)
    found: dict[int, list[np.ndarray]] = {place: [] for place in places}
    for start in range(0, len(images), _BATCH):
        for place, x in crossing(dataset.normalise(images.images[start : start + _BATCH])).items():
            with torch.no_grad():
                found[place].append((heads[place](x) if place in heads else x).numpy())
    return tuple(np.concatenate(found[place]) for place in places)


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
    try:
        state = load_file(path)
    except (OSError, SafetensorError, ValueError) as error:
        raise DataError(f"cannot read {path} as safetensors: pass a whole .safetensors file") from error
    found: dict[str, dict[str, torch.Tensor]] = {}
    for key, value in state.items():
        if key.startswith(HEADS):
            place, _, name = key.removeprefix(HEADS).partition(".")
            found.setdefault(place, {})[name] = value
    heads: dict[int, ExitHead] = {}
    for written, weights in found.items():
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
