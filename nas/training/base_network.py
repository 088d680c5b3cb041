"""From names on a command line to a trained, exported and analysed base network and three sets of images."""

import hashlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from compile.program_file import program_bytes, read_program
from modeltree.errors import ConfigError, DataError, Remark
from modeltree.files import write_bytes
from modeltree.outputs import Output, answer_shape
from nas.bases import build, fingerprint, load_weights_, save_weights
from nas.config import SearchConfig
from nas.data import Dataset, ImageSet, class_names, load_dataset
from nas.data.split import stratified
from nas.jobs.batches import channels_together
from nas.jobs.progress import Progress
from nas.quality.measure import TOP1, Measure
from nas.quality.own_metric import own_metric
from nas.training.deployability import check_program
from nas.training.has_learned import fault
from nas.training.rate import checked_rate
from nas.training.task import FACTORY, judged, key_of, outputs_of, say_agreement, task_fault
from nas.training.train import TrainConfig, multiplies_bf16, recipe, train
from transforms import Network, analyse, export

_UNSEEN_SHARE, _UNSEEN_MOST = 0.2, 2000
_FIT_IMAGES = 4000  # for distillation; fine-tuning sees all
_PROBE_IMAGES = 1000
_SEARCH_IMAGES = 2000
_LEAST_IMAGES = 500
_IMAGE_BYTES = 768 * 2**20  # of normalised images in memory at once
_TRAINING = 2  # raised when training gives other weights for the same recipe


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A base network ready to be searched.

    program : file of the exported base network.
    key : fingerprint of the base's weights and of what its variants are distilled and judged on.
    measure : of answers; what is called accuracy. outputs : what it answers, where that is not one vector of classes.
    trained_now : whether it was trained just now.
    """

    dataset: Dataset
    model: nn.Module
    network: Network
    program: Path
    key: tuple[str, str]
    measure: Measure = TOP1
    outputs: tuple[Output, ...] = ()
    trained_now: bool = False

    @property
    def answer_shape(self) -> tuple[int, ...]:
        """Of the network's one answer to an image."""
        return answer_shape(self.outputs) if self.outputs else (len(self.dataset.classes),)

    @property
    def chance(self) -> float:
        """Percent that an answer gets which knows nothing of its image."""
        known = self.measure.chance
        return 100.0 / len(self.dataset.classes) if known is None else known

    @property
    def small(self) -> bool:
        """Whether there are so few training images that fewer steps do."""
        return self.dataset.small

    def answers(self, images: torch.Tensor) -> torch.Tensor:
        """(n, *answer_shape) of the base network to normalised images (n, c, h, w)."""
        return torch.as_tensor(self.network.graph(channels_together(images)))

    def fit_images(self, seed: int) -> torch.Tensor:
        """Normalised images to distil on, drawn from the training part."""
        return self._normalised(self.dataset.fit, _FIT_IMAGES, seed)[0]

    def search_images(self, seed: int, most: int = _SEARCH_IMAGES) -> tuple[torch.Tensor, np.ndarray]:
        """Normalised images and what they should be answered with, (n, ...), that the search may look at; mixed."""
        return self._normalised(self.dataset.search, most, seed)

    def probe_images(self, seed: int) -> tuple[torch.Tensor, np.ndarray]:
        """The first of `search_images`, to judge single variants on."""
        return self.search_images(seed, _PROBE_IMAGES)

    def _normalised(self, part: ImageSet, most: int, seed: int) -> tuple[torch.Tensor, np.ndarray]:
        fitting = max(_LEAST_IMAGES, _IMAGE_BYTES // (4 * int(np.prod(part.images.shape[1:]))))
        chosen = np.random.default_rng(seed).permutation(len(part))[: min(most, fitting)]
        return self.dataset.normalise(part.images[chosen]), part.truth[chosen]


def prepare(
    config: SearchConfig, folder: Path, cache: Path, progress: Progress,
    check: Callable[[Network], object] = lambda network: None,
    begins: Callable[[Network, Dataset, TrainConfig], object] = lambda network, data, training: None,
) -> Prepared:  # fmt: skip
    """Load data, build the base network, load or train its weights, export and analyse it.

    folder : takes `base.pt2`. cache : takes decoded images and trained base networks.
    check : refuses a network that cannot be searched as asked, before images are decoded and weights are trained.
    begins : told of the untrained network, the data and the recipe before it is trained, if it has to be.

    Raises
    ------
    ConfigError, DataError, GraphError : whatever does not fit, in one line.
    """
    classes = class_names(config.data, image_size=config.image_size)
    model = build(
        config.base, num_classes=len(classes), image_size=config.image_size, seed=config.seed,
        channels=config.input_shape[0], any_output=True,
    )  # fmt: skip
    if config.weights not in (None, FACTORY) and (notes := load_weights_(model, Path(str(config.weights)))):
        progress(1, 1, f"weights: {', '.join(notes)}")
    outputs, whole = outputs_of(model, config, len(classes))
    if config.metric is not None:
        own_metric(config.metric, outputs, from_base=True)  # before anything is trained
    if outputs and config.exits != "none":
        raise ConfigError("exits answer with classes: leave --exits out for a network of another task")
    if config.weights is None and outputs:
        raise ConfigError(
            f"{config.base} gives {', '.join(f'{one.name} {list(one.shape)}' for one in outputs)}, which nas cannot "
            f"train: pass its --weights, or --weights {FACTORY} where the factory has set them"
        )
    program = folder / "base.pt2"
    exported = None
    if not program.exists():
        exported = export(whole, config.input_shape)
        with warnings.catch_warnings():
            if config.weights is None:
                warnings.simplefilter("ignore", Remark)  # which the trained network gives
            check_program(exported)
        check(analyse(exported))
    dataset = dataset_of(config, cache)
    if config.weights is not None and dataset.classes:
        dataset = with_unseen_search(dataset, config.seed)
    trained_now = False
    if config.weights is None:
        training = replace(recipe(dataset, seed=config.seed, model=whole), bf16=multiplies_bf16())
        kept = _kept(whole, dataset, training, cache)
        trained_now = not kept.exists()
        if trained_now and exported is not None:
            begins(analyse(exported), dataset, training)
        whole = _trained(whole, dataset, training, kept, progress)
    whole.eval()
    if exported is not None:
        if config.weights is None:
            exported = export(whole, config.input_shape)
            check_program(exported)
        write_bytes(program, program_bytes(exported))
    if outputs and config.metric is None:
        say_agreement(outputs)
    network = analyse(read_program(program))
    roles = "given" if config.weights is not None else "trained"
    code = hashlib.sha256(network.graph.code.encode()).hexdigest()
    key = (f"{fingerprint(whole)}/{code}", f"{dataset.fingerprint}/{roles}/{config.seed}")
    dataset, measure = judged(dataset, whole, config, outputs, len(classes))
    key = key[0], key[1] + key_of(measure)
    return Prepared(
        dataset=dataset, model=whole, network=network, program=program, key=key, measure=measure, outputs=outputs,
        trained_now=trained_now,
    )  # fmt: skip


def dataset_of(config: SearchConfig, cache: Path | None) -> Dataset:
    """The data that a config names, as it says."""
    return load_dataset(
        config.data, image_size=config.image_size, seed=config.seed, cache=cache, rule=config.rule, mean=config.mean,
        std=config.std,
    )  # fmt: skip


def check_learnt(prepared: Prepared, config: SearchConfig) -> None:
    """Refuse a base network that is right no more often than a guess, unless the config allows it.

    Raises
    ------
    DataError : it has not learnt its classes, or answers with numbers that are not finite, which nothing allows.
    """
    if prepared.outputs:
        wrong = task_fault(prepared.model, prepared.dataset, prepared.measure)
        if wrong is not None and not config.allow_chance:
            raise DataError(
                f"the base network is not worth a search: {wrong}: check its --weights, --mean and --std, or go on "
                "with --allow-chance"
            )
        return
    wrong = fault(prepared.model, prepared.dataset, prepared.dataset.search)
    if wrong is None or config.allow_chance:
        return
    cure = "train it with nas train (more --epochs, another --lr) and pass its --weights"
    if config.weights is not None:
        cure = "pass --weights that were trained on these classes in this order"
    raise DataError(f"the base network has not learnt its classes: {wrong}: {cure}, or go on with --allow-chance")


def with_unseen_search(dataset: Dataset, seed: int) -> Dataset:
    """Hold images back from the test part for the search, where the weights came from elsewhere.

    Such weights may have seen every training image, so that accuracy there says nothing; only test images are safe. A
    fifth of them (2000 at most) goes to the search and is not tested on.
    """
    count = min(_UNSEEN_MOST, int(_UNSEEN_SHARE * len(dataset.test)))
    rest, held = stratified(dataset.test.labels, count, np.random.default_rng(seed))
    if not len(held):
        raise DataError(f"{dataset.name} has {len(dataset.test)} test images: give at least 5 a class")
    test = dataset.test
    return replace(
        dataset,
        search=test.take(held),
        test=test.take(rest),
    )


def _kept(model: nn.Module, dataset: Dataset, training: TrainConfig, cache: Path) -> Path:
    """Where the weights lie that a training ends with."""
    recipe_key = hashlib.sha256(repr((_TRAINING, training)).encode()).hexdigest()[:8]
    return cache / "bases" / f"{fingerprint(model)[:16]}_{dataset.fingerprint[:16]}_{recipe_key}.safetensors"


def _trained(model: nn.Module, dataset: Dataset, training: TrainConfig, kept: Path, progress: Progress) -> nn.Module:
    """The base network trained on this data, from the cache if it was done before."""
    if kept.exists():
        load_weights_(model, kept)
        return model
    state = kept.with_suffix(".part")
    kept.parent.mkdir(parents=True, exist_ok=True)
    trained = train(model, dataset, checked_rate(model, dataset, training), checkpoint=state, progress=progress)
    save_weights(trained, kept)
    state.unlink(missing_ok=True)
    return trained
