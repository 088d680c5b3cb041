"""Learned bottlenecks at the cuts of a frozen network: trained to lose neither the features nor the answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from modeltree.files import write_bytes
from nas.jobs.progress import Progress
from nas.training.base_network import Prepared
from nas.training.teacher import DistillationSet, distillation_set
from transforms import Network, values_at
from transforms.bottleneck import Decoder, Encoder, bottleneck, start_
from transforms.quantise import quantised

_STEPS_SMALL, _STEPS = 200, 400
_BATCH = 64
_START = 512  # images for the principal components
_LR = 1e-3
_TEMPERATURE = 3.0


def train_bottlenecks(
    prepared: Prepared,
    wanted: Sequence[tuple[int, int]],
    folder: Path,
    seed: int,
    progress: Progress,
    *,
    bits: int | None = None,
) -> dict[tuple[int, int], tuple[Encoder, Decoder]]:
    """Encoder and decoder for every (place, channels kept), the base frozen; read from `folder` where it has them.

    They start from the principal components of what crosses and are then distilled: on the features in front of the
    cut, and on the base's logits with the decoder's features put in their place. What the base computes up to the
    places is computed once a batch for all. One of them comes out the same whichever others are trained beside it.

    Parameters
    ----------
    bits : code width that the codes are trained for (straight-through quantisation between encoder and decoder); None
        trains for plain numbers.

    Raises
    ------
    ConfigError : nothing that has channels crosses at a place, or more are to be kept than there are.
    DataError : the folder cannot be written.
    """
    spec = prepared.network.spec
    coders: dict[tuple[int, int], tuple[Encoder, Decoder]] = {}
    missing: list[_Learner] = []
    for place, kept in wanted:
        with torch.random.fork_rng(devices=[]):  # these weights are never used
            encoder, decoder = coders[place, kept] = bottleneck(spec.places[place].shape, kept)
        path = folder / f"bottleneck_{place}_{kept}_{bits or 32}.safetensors"
        both = nn.ModuleDict({"encoder": encoder, "decoder": decoder}).eval()
        if not _read_(both, path):
            rest = prepared.network.between(place, len(spec.segments)).eval()
            missing.append(_Learner(place, encoder, decoder, rest, both, path))
    if missing:
        examples = distillation_set(prepared, folder, seed, progress)
        _train_(prepared.network, missing, examples, _STEPS_SMALL if prepared.small else _STEPS, bits, seed, progress)
        for learner in missing:
            write_bytes(learner.path, save(learner.both.state_dict()))
    return coders


@dataclass(frozen=True, eq=False)
class _Learner:
    place: int
    encoder: Encoder
    decoder: Decoder
    rest: nn.Module
    both: nn.Module
    path: Path

    def loss(self, x: torch.Tensor, target: torch.Tensor, bits: int | None) -> torch.Tensor:
        """Error of the features relative to their variance, and divergence from the base's softened logits."""
        code = self.encoder(x)
        back = self.decoder(code if bits is None else quantised(code, bits))
        student = torch.log_softmax(self.rest(back) / _TEMPERATURE, 1)
        apart = nn.functional.kl_div(student, target, reduction="batchmean") * _TEMPERATURE**2
        return (back - x).square().mean() / x.var().clamp_min(1e-12) + apart


def _read_(both: nn.Module, path: Path) -> bool:
    """Fill encoder and decoder from a file; False if there is none or it is damaged."""
    try:
        both.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError):
        return False
    return True


def _train_(
    network: Network, learners: Sequence[_Learner], examples: DistillationSet, steps: int, bits: int | None, seed: int,
    progress: Progress,
) -> None:  # fmt: skip
    """Adam with a one-cycle rate on all learners side by side; no parameter is shared, so none disturbs another."""
    rng = np.random.default_rng([seed, 4])
    first = np.sort(rng.permutation(len(examples))[:_START])
    places = {learner.place for learner in learners}
    features = values_at(network, examples.take(first, 0)[0], places)
    for learner in learners:
        start_(learner.encoder, learner.decoder, features[learner.place])
    parameters = [p for learner in learners for p in learner.both.parameters()]
    optimiser = torch.optim.Adam(parameters, lr=_LR)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, _LR, total_steps=steps)
    for step in range(steps):
        chosen = np.sort(rng.integers(0, len(examples), _BATCH))
        images, answers = examples.take(chosen, int(rng.integers(len(examples.logits))))
        target = torch.softmax(answers / _TEMPERATURE, 1)
        features = values_at(network, images, places)
        optimiser.zero_grad()
        for learner in learners:
            own = list(learner.both.parameters())
            learner.loss(features[learner.place], target, bits).backward(inputs=own)
        optimiser.step()
        schedule.step()
        progress(step + 1, steps, "bottlenecks")
