"""Prediction against measurement: random branches of a base network, compiled, timed, and priced by the profile."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import fx, nn

from compile.program_file import program_bytes
from modeltree.errors import NotApplicable
from modeltree.layers import LayerSpec
from modeltree.profiles import DeviceProfile
from nas.jobs.progress import Progress, silent
from nas.profiling.timing import Timer, timed
from transforms import TECHNIQUES, Network, analyse, compose, export, node_values, technique
from transforms.graph.describe import module_specs

_KEEP_CHANCE = 0.5
_IMAGES = 16


@dataclass(frozen=True, kw_only=True)
class Checked:
    """One branch. `choices` are technique and rate per unit, unchanged units left out."""

    name: str
    choices: str
    predicted_ms: float
    measured_ms: float

    @property
    def error(self) -> float:
        """Predicted over measured, less one."""
        return self.predicted_ms / self.measured_ms - 1


def checked(
    bases: Sequence[tuple[str, nn.Module]], profile: DeviceProfile, timer: Timer, *, branches: int, image_size: int,
    rounds: int, burst_s: float, rng: np.random.Generator,
    progress: Progress = silent,
) -> list[Checked]:  # fmt: skip
    """So many branches in all, drawn from the bases in turn; weights do not matter."""
    networks = [(name, analyse(export(module, (3, image_size, image_size)))) for name, module in bases]
    values = [sample_values(network) for _, network in networks]
    found, numbers = [], []
    for index in range(branches):
        which = index % len(networks)
        (name, network), known = networks[which], values[which]
        progress(index, branches, f"{name}: a random branch")
        said, branch = random_branch(network, known, rng)
        layers: list[LayerSpec] = module_specs(branch, network.spec.input_shape)
        numbers.append(timer.add(program_bytes(export(branch, network.spec.input_shape))))
        found.append((name, said, profile.compute_ms(layers)))
    progress(branches, branches, "")
    measured = timed(timer, numbers, rounds=rounds, burst_s=burst_s, rng=rng).timings
    return [
        Checked(name=name, choices=said, predicted_ms=guess, measured_ms=one.ms)
        for (name, said, guess), one in zip(found, measured)
    ]


def random_branch(
    network: Network, values: dict[str, torch.Tensor], rng: np.random.Generator
) -> tuple[str, fx.GraphModule]:
    """Every unit stays as it is or takes a random technique that fits; what was chosen, and the composed network.

    values : (n, *shape) of what every node gives (`sample_values`).
    """
    variants: dict[int, nn.Module] = {}
    said = []
    last = network.spec.places[-1].after
    taken: set[int] = set()
    for unit in network.units:
        if unit.index in taken:
            continue
        if rng.random() < _KEEP_CHANCE:
            continue
        fitting = []
        for name in TECHNIQUES:
            rate = float(rng.choice(technique(name).rates))
            try:
                structure = technique(name).structure(unit, rate)
            except NotApplicable:
                continue
            fitting.append((name, rate, structure.ends_network, technique(name).reach(unit)))
        if not fitting:
            continue
        name, rate, ends, body = fitting[int(rng.integers(len(fitting)))]
        source, target = (unit.source, unit.output) if body is None else (body.source, body.output)
        samples = (values[source], values[last if ends else target])
        taken.update(() if body is None else body.units)
        variants[unit.index] = technique(name).apply(unit, rate, samples)
        said.append(f"{unit.index}:{name}@{rate:g}")
        if ends:
            break
    return " ".join(said) or "unchanged", compose(network, 0, len(network.spec.segments), variants)


def sample_values(network: Network) -> dict[str, torch.Tensor]:
    """What the base network computes inside, for a few random images."""
    images = torch.randn(_IMAGES, *network.spec.input_shape, generator=torch.Generator().manual_seed(0))
    return node_values(network, images)
