"""Early exits and coded hand-overs of a base network: found, trained and measured.

Every exit and every code is judged alone, with the base network in front and behind; the predictor adds their damage to
that of the variants. What crosses is coded as the runtime codes it, and its size is that of the frame.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
import torch
from torch import nn

from modeltree.errors import DataError
from modeltree.files import write_bytes
from modeltree.layers import LayerSpec
from nas.bases import fingerprint
from nas.config import SearchConfig
from nas.exits.bottlenecks import train_bottlenecks
from nas.exits.catalogue import Coder, KnownCode, KnownEndings, KnownExit, KnownPicture
from nas.exits.heads import load_heads, train_heads
from nas.exits.pictures import measure_pictures
from nas.exits.places import exit_places
from nas.exits.thresholds import LOST_BY_CONFIDENCE, largest_threshold
from nas.jobs.progress import Progress
from nas.training.base_network import Prepared
from nas.training.task import FACTORY
from runtime.selection.early_exit import entropies_nats
from runtime.wire.codec import FLOAT_BITS
from runtime.wire.frames import encode
from transforms import Network, values_at
from transforms.bottleneck import bottleneck_layers
from transforms.exits import ExitHead, head_layers
from transforms.quantise import quantised

_MEASURED = 1  # raise it when what is measured, or how, changes
_PICTURES_MEASURED = 1
_BATCH = 250
_SIZED = 64  # images whose frames are counted


class _Measured(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    exits: tuple[KnownExit, ...]
    codes: tuple[KnownCode, ...]


def learn_endings(config: SearchConfig, prepared: Prepared, folder: Path, progress: Progress) -> KnownEndings:
    """Find, train and measure what a config asks for; what does not depend on the search is kept in `folder`.

    Heads that came with the weights are taken as they are; others are distilled from the base network.

    Raises
    ------
    ConfigError : no such exit. DataError : a file in `folder` is damaged.
    """
    network = prepared.network
    places = exit_places(network, config.exits, base=config.base)
    own = config.weights not in (None, FACTORY) and places
    given = load_heads(Path(str(config.weights)), network) if own else {}
    heads = {place: given[place] for place in places if place in given}
    if missing := [place for place in places if place not in heads]:
        heads |= train_heads(prepared, missing, folder, config.seed, progress)
    wanted = _bottlenecks(network, config.bottleneck)
    least = min(config.bits, default=None)
    coders: dict[tuple[int, int], Coder] = {}
    if wanted:
        coders = dict(train_bottlenecks(prepared, wanted, folder, config.seed, progress, bits=least))
    pictures = _pictures(config, prepared, folder, progress)
    preprocessing = prepared.dataset.preprocessing
    if not heads and not config.bits and not coders:
        return KnownEndings(pictures=pictures, preprocessing=preprocessing)
    path = folder / f"endings_{_tag(config, heads, coders)}.json"
    if path.exists():
        try:
            measured = msgspec.json.decode(path.read_bytes(), type=_Measured)
        except msgspec.MsgspecError as error:
            raise DataError(f"{path} is damaged ({error}): delete it and run again") from error
    else:
        measured = _Measured(
            measure_exits(prepared, heads, config.seed),
            measure_codes(prepared, config.bits, coders, config.seed, progress),
        )
        write_bytes(path, msgspec.json.encode(measured))
    return KnownEndings(
        exits=measured.exits,
        codes=measured.codes,
        heads=heads,
        coders=coders,
        pictures=pictures,
        preprocessing=preprocessing,
    )


def _pictures(
    config: SearchConfig, prepared: Prepared, folder: Path, progress: Progress
) -> tuple[KnownPicture, ...]:  # fmt: skip
    """Ways to send the picture as a file, from `folder` if they were measured before."""
    codes = config.offered_codes
    told = [_PICTURES_MEASURED, codes, config.seed, prepared.dataset.files]
    path = folder / f"pictures_{hashlib.sha256(repr(told).encode()).hexdigest()[:16]}.json"
    if path.exists():
        try:
            return msgspec.json.decode(path.read_bytes(), type=tuple[KnownPicture, ...])
        except msgspec.MsgspecError as error:
            raise DataError(f"{path} is damaged ({error}): delete it and run again") from error
    measured = measure_pictures(prepared, codes, config.seed, progress)
    write_bytes(path, msgspec.json.encode(measured))
    return measured


def measure_exits(prepared: Prepared, heads: Mapping[int, ExitHead], seed: int) -> tuple[KnownExit, ...]:
    """Accuracy of every exit on the search images, and the threshold of its confidence, calibrated on half of them."""
    if not heads:
        return ()
    network, places = prepared.network, sorted(heads)
    images, labels = prepared.search_images(seed)
    ends = [*places, len(network.spec.segments)]
    outputs: dict[int, list[np.ndarray]] = {place: [] for place in ends}
    with torch.no_grad():
        for batch in images.split(_BATCH):
            for place, x in values_at(network, batch, ends).items():
                outputs[place].append((heads[place].eval()(x) if place in heads else x).numpy())
    logits = [np.concatenate(outputs[place]) for place in ends]
    right = [one.argmax(1) == labels for one in logits]
    rows = []
    for i, place in enumerate(places):
        sure = largest_threshold(entropies_nats(logits[i]), right[i], right[-1], max_loss=LOST_BY_CONFIDENCE)
        rows.append(
            KnownExit(
                exit=i + 1,
                place=place,
                drop=100.0 * float(right[-1].mean() - right[i].mean()),
                entropy=sure.entropy,
                rate=sure.rate,
                loss=sure.loss,
                layers=head_layers(heads[place], network.spec.places[place].shape),
            )
        )
    return tuple(rows)


_Key = tuple[int, int, int]  # place, bits, channels kept (0: all, without a bottleneck)


def measure_codes(
    prepared: Prepared, bits: Sequence[int], coders: Mapping[tuple[int, int], Coder], seed: int, progress: Progress
) -> tuple[KnownCode, ...]:  # fmt: skip
    """Accuracy and frame size of every place with every width, plain and through its bottlenecks.

    The image itself (place 0) crosses as it is.
    """
    network = prepared.network
    last = len(network.spec.segments)
    keys: list[_Key] = [(place, width, 0) for place in range(1, last) for width in bits]
    keys += [(place, width, kept) for place, kept in coders for width in (*bits, FLOAT_BITS)]
    if not keys:
        return ()
    images, labels = prepared.probe_images(seed)
    tallies = {key: _Tally() for key in sorted(keys)}
    places = sorted({place for place, _, _ in keys})
    rests = {place: network.between(place, last).eval() for place in places}
    plain, score = 0.0, prepared.measure.scores
    with torch.no_grad():
        for start in range(0, len(labels), _BATCH):
            truth = labels[start : start + _BATCH]
            x, at = images[start : start + _BATCH], 0
            for place in places:
                x, at = values_at(network, x, [place], start=at)[place], place  # one at a time: large maps are many GB
                for key in (key for key in tallies if key[0] == place):
                    tallies[key].add(x, truth, key[1], coders.get((place, key[2])), rests[place], score)
                progress(_done(tallies), len(keys) * len(labels), "coded hand-overs")
            plain += float(score(rests[at](x), truth).sum())
    return tuple(_known_code(key, tally, plain, coders, network) for key, tally in tallies.items())


@dataclass(kw_only=True)
class _Tally:
    """What was counted of one place and width. right : the sum of the scores of so many images.

    frame_bytes : of the first images. shape : of what crosses, per image.
    """

    right: float = 0.0
    images: int = 0
    frame_bytes: list[int] = field(default_factory=list)
    shape: tuple[int, ...] = ()

    def add(
        self, x: torch.Tensor, truth: np.ndarray, width: int, coder: Coder | None, rest: nn.Module,
        score: Callable[[torch.Tensor, np.ndarray], np.ndarray],
    ) -> None:  # fmt: skip
        """Send what crosses, x (n, *shape), through its code to the rest of the network; truth (n, ...)."""
        encoder, decoder = coder or (nn.Identity(), nn.Identity())
        crossing = encoder(x)
        self.shape = tuple(crossing.shape[1:])
        for one in crossing[: max(0, _SIZED - len(self.frame_bytes))]:
            self.frame_bytes.append(len(encode(np.ascontiguousarray(one[None].numpy()), width)))
        decoded = decoder(crossing if width == FLOAT_BITS else quantised(crossing, width))
        self.right += float(score(rest(decoded), truth).sum())
        self.images += len(truth)


def _done(tallies: Mapping[_Key, _Tally]) -> int:
    return sum(tally.images for tally in tallies.values())


def _known_code(
    key: _Key, tally: _Tally, plain: float, coders: Mapping[tuple[int, int], Coder], network: Network
) -> KnownCode:  # fmt: skip
    """plain : the sum of the scores without coding."""
    place, width, kept = key
    encoder, decoder = _coder_layers(coders, place, kept, network.spec.places[place].shape)
    return KnownCode(
        place=place, bits=width, kept=kept, shape=tally.shape, bytes=float(np.mean(tally.frame_bytes)),
        drop=100.0 * (plain - tally.right) / tally.images, encoder=encoder, decoder=decoder,
    )  # fmt: skip


def _bottlenecks(network: Network, shares: Sequence[float]) -> list[tuple[int, int]]:
    """(place, channels kept) for every place that has channels to spare."""
    wanted = []
    for place in network.spec.places[1:-1]:
        if len(place.shape) == 3:
            wanted += [(place.index, kept) for share in shares if (kept := round(share * place.shape[0])) > 0]
    return wanted


def _coder_layers(
    coders: Mapping[tuple[int, int], Coder], place: int, kept: int, shape: tuple[int, ...]
) -> tuple[tuple[LayerSpec, ...], tuple[LayerSpec, ...]]:
    if not kept:
        return (), ()
    encoder, decoder = bottleneck_layers(*coders[place, kept], shape)
    return tuple(encoder), tuple(decoder)


def _tag(config: SearchConfig, heads: Mapping[int, ExitHead], coders: Mapping[tuple[int, int], Coder]) -> str:
    told = [_MEASURED, config.bits, config.seed, [(place, fingerprint(head)) for place, head in sorted(heads.items())]]
    told += [(key, *map(fingerprint, coder)) for key, coder in sorted(coders.items())]
    return hashlib.sha256(repr(told).encode()).hexdigest()[:16]
