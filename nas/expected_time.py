"""How long a whole search takes, reckoned before its long part begins.

What it will do is counted in passes of the base network over an image, one of which is timed on the machine as it is
now. What is no pass (a closed form, an episode, starting processes) counts as it took on two x86-64 cores. How many
variants must be trained and how many paths a tree has is not known yet, and taken as it usually is: an estimate, of
which benchmarks/README.md says how far off it was.
"""

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from modeltree.profiles import load_profile
from nas.compression.budget import probe_count
from nas.compression.calibration_set import COMPOSITIONS
from nas.compression.candidates import candidates, slower
from nas.compression.distillation import DistilConfig
from nas.compression.library import variant_file
from nas.config import SearchConfig
from nas.data import Dataset
from nas.finalise.contenders import finetune_settings
from nas.jobs.batches import channels_together, images_at_once
from nas.jobs.threads import torch_threads
from nas.training.train import TrainConfig
from transforms import Network

_TRAINED_PASS, _TRAINED_BASE = 3.0, 4.0  # a step, forward and back, in passes; with shifted images
_THREAD, _THREADS = 0.6, 8  # what each thread beside the first is worth, up to so many
_TIMED, _LEAST, _MOST, _LONG_S = 16, 2, 7, 1.0  # images in a timed pass; how often, until so long

_MADE = 0.6  # of the variants that apply; faster ones of their layers spare the others
_UNSETTLED = 0.5  # of those made, that are trained
_CLOSED_FORM_S, _CLOSED_FORM_PASSES, _START_S = 0.15, 100, 4.0
_BEHIND = 0.6  # of a pass: what lies behind a variant, or a network of variants
_EPISODE_S = 1e-3  # for every type and block
_PATHS = 2  # of a tree and its rivals, first parts that they share counted once
_REST_S = 8.0  # exports, report


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What a search is expected to take.

    seconds : by stage, in order. image_ms : of the timed pass over one image, on one thread. variants : that apply and
    are not there yet.
    """

    seconds: Mapping[str, float]
    image_ms: float
    variants: int

    @property
    def total_s(self) -> float:
        """All stages together."""
        return sum(self.seconds.values())


def expected(
    config: SearchConfig, network: Network, dataset: Dataset, *, training: TrainConfig | None = None,
    library: Path | None = None,
) -> Expected:  # fmt: skip
    """What a search will take from here on.

    Parameters
    ----------
    training : how the base network is trained first; None where it is trained.
    library : the folder of the network's variants; None where there can be none yet.
    """
    image_s = seconds_a_pass(network)
    distil, tuning = DistilConfig.of(dataset, config.seed), finetune_settings(config, network.spec, dataset)
    workers = 1 if config.executor == "serial" else config.workers
    threads = 1 + _THREAD * (min(config.workers, _THREADS) - 1)
    search, test = len(dataset.search), len(dataset.test)
    device = load_profile(config.device)
    applies = candidates(network, config.techniques, device.lanes)[0]
    useless = slower(network, applies, device)
    wanted = [key for key in applies if key not in useless]
    made = 0 if library is None else sum((library / variant_file(*key)).exists() for key in wanted)
    missing = max(0, round(_MADE * len(wanted)) - made)
    known = library is not None and any(library.glob("calibration_*.json")) and 2 * made > missing
    seconds = {}
    if training is not None:
        seen = training.epochs * len(dataset.fit)
        seconds["base network"] = _TRAINED_BASE * seen * image_s / threads
    probes = probe_count(network.spec, search)
    trained = _TRAINED_PASS * distil.steps / 2 * distil.batch_size / max(len(network.units), 1)
    each = _CLOSED_FORM_S + image_s * (_CLOSED_FORM_PASSES + _BEHIND * probes + _UNSETTLED * trained)
    features = _START_S + len(dataset.fit) * image_s / threads
    seconds["variant library"] = missing * each / workers + (features if missing else 0.0)
    seconds["predictor"] = 0.0 if known else _BEHIND * COMPOSITIONS * search * image_s / workers + _START_S
    seconds["search"] = _EPISODE_S * config.budget * config.K * config.N
    taught = _TRAINED_PASS * tuning.steps * tuning.batch_size * _PATHS
    seconds["fine-tuning"] = (taught + (3 * search + test) * _PATHS) * image_s / threads + _REST_S
    return Expected(seconds=seconds, image_ms=1e3 * image_s, variants=missing)


def seconds_a_pass(network: Network) -> float:
    """Of one thread for one image in a batch: the median of some runs, with whatever else the machine does."""
    count = min(_TIMED, images_at_once(network.spec))
    images = channels_together(torch.zeros(count, *network.spec.input_shape))
    taken: list[float] = []
    with torch_threads(1), torch.no_grad():
        network.graph(images)
        while len(taken) < _LEAST or (len(taken) < _MOST and sum(taken) < _LONG_S):
            began = time.perf_counter()
            network.graph(images)
            taken.append(time.perf_counter() - began)
    return statistics.median(taken) / count
