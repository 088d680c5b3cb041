"""Heads and their network trained together: every exit from the labels, the earlier ones from the last as well."""

import copy
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from modeltree.errors import ConfigError
from nas.data.dataset import Dataset
from nas.exits.heads import distilled_loss, new_head
from nas.jobs.progress import Progress
from nas.training.train import Criterion, TrainConfig, train
from transforms import Network, analyse, export, values_at
from transforms.exits import ExitHead

_MATCH = 1e-3  # of the largest number: more than what folding batch norm changes


_MATCH_IMAGES = 8


_EARLY = 0.5  # weight of an early exit's loss; the last one's is 1


_Tap = tuple[str, int]  # (name of a submodule, which of its calls): where a place's tensor is made


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
    """Train copies of `model` and of new heads at `places` together, as `nas.training.train.train` trains a network.

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
    network = analyse(export(model, dataset.image_shape))
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
            total = total + _EARLY * distilled_loss(logits, labels, last.detach(), config.label_smoothing)
        return total

    return loss


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
        answers: dict[int, torch.Tensor] = {}
        wanted = {tap: place for place, tap in self.taps.items()}

        def see(tap: _Tap, value: torch.Tensor) -> None:
            if tap in wanted:
                answers[wanted[tap]] = self.head(wanted[tap])(value.clone())  # the next layer may work in place

        last = _watched(self.trunk, x, see, [name for name, _ in wanted])
        return [*(answers[place] for place in sorted(self.taps)), last]


def _watched(
    model: nn.Module, x: torch.Tensor, see: Callable[[_Tap, torch.Tensor], None], names: Iterable[str]
) -> torch.Tensor:
    """`model(x)`; `see` is shown what the named parts of it return, in the order they end.

    The module as its author wrote it is trained here, not the exported graph, so that its parts are watched by hooks.
    """
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
    taps: dict[int, _Tap] = {}
    values = values_at(network, images, inner)

    def see(tap: _Tap, value: torch.Tensor) -> None:
        for place in inner:
            if place not in taps and _same(value, values[place]):
                taps[place] = tap

    with torch.no_grad():
        _watched(copy.deepcopy(model).eval(), images, see, [name for name, _ in model.named_modules()])
    if lacking := [place for place in places if place not in taps]:
        raise ConfigError(
            f"no module of the network returns what crosses at place {lacking[0]}, so that no exit can be trained "
            f"there: pass some of {', '.join(map(str, sorted(taps)))}, or write that part as a module"
        )
    return {place: taps[place] for place in places}


def _same(one: torch.Tensor, two: torch.Tensor) -> bool:
    return one.shape == two.shape and bool((one - two).abs().max() <= _MATCH * two.abs().max())
