"""Accuracy and device time of every exit of trained networks, and what leaving by confidence gives.

    python benchmarks/exits.py --data imagefolder:DIR alexnet_exits=FILE vgg11=FILE [--max-loss 0.2 0.5 1]

FILE is what `nas train --exits` wrote. Accuracy of an exit is on all test images. Thresholds are calibrated on the 2000
test images that a search may look at, each exit alone against the last; the network that leaves by them is measured on
the other test images. Device time is predicted from the profile. A layer is one with weights. That the images are
re-encoded as JPEG costs a point or so according to whoever did it; the originals were not here to measure it.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch

from modeltree.profiles import DeviceProfile, load_profile
from nas.cli.search import default_cache
from nas.config import SearchConfig
from nas.exits.heads import exit_logits, load_heads
from nas.exits.thresholds import largest_threshold
from nas.jobs.machine import commit, processor, today
from nas.training.base_network import Prepared, prepare
from runtime.selection.early_exit import entropies_nats
from transforms.exits import ExitHead, head_layers


def main() -> None:
    """Measure and print as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="+", metavar="BASE=FILE")
    parser.add_argument("--data", required=True)
    parser.add_argument("--max-loss", type=float, nargs="*", default=[0.2, 0.5, 1.0])
    parser.add_argument("--device", default="phone")
    parser.add_argument("--cache", type=Path, default=default_cache())
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{processor()}, {today()}, commit {commit()}; device time: profile {options.device}\n")
    for named in options.networks:
        base, _, weights = named.partition("=")
        with tempfile.TemporaryDirectory() as folder:
            config = SearchConfig(base=base, data=options.data, weights=weights)
            prepared = prepare(config, Path(folder), options.cache, lambda *_: None)
        heads = load_heads(Path(weights), prepared.network)
        _report(base, prepared, heads, load_profile(options.device), options.max_loss)


def _report(
    base: str, prepared: Prepared, heads: dict[int, ExitHead], device: DeviceProfile, losses: list[float]
) -> None:  # fmt: skip
    network, dataset = prepared.network, prepared.dataset
    spec, places = network.spec, [*heads, len(network.spec.segments)]
    parts = (dataset.search, dataset.test)
    held, test = (exit_logits(network, heads, part, dataset) for part in parts)
    right, right_test = (
        [logits.argmax(1) == part.labels for logits in found] for found, part in zip((held, test), parts)
    )
    trunk_ms = np.array([device.compute_ms(spec.layers(0, place)) for place in places])
    head_ms = [device.compute_ms(head_layers(head, spec.places[place].shape)) for place, head in heads.items()]
    layers = [sum(layer.macs > 0 for layer in spec.layers(0, place)) for place in places]
    rows = [
        (i + 1, place, spec.places[place].after, f"{layers[i]} of {layers[-1]}",
         f"{trunk_ms[i] + sum(head_ms[i : i + 1]):.1f}", f"{100 * np.append(right[i], right_test[i]).mean():.2f}")
        for i, place in enumerate(places)
    ]  # fmt: skip
    print(f"{base}, {len(dataset.search) + len(dataset.test)} test images\n")
    _print("exit | place | after | layers | device ms | accuracy %", rows)
    waited_ms = trunk_ms + np.cumsum([*head_ms, 0.0])  # every head on the way has spoken
    rows = []
    for most in losses:
        sure = [
            largest_threshold(entropies_nats(held[i]), right[i], right[-1], max_loss=most).entropy
            for i in range(len(heads))
        ]
        first = np.full(len(test[-1]), len(heads))
        for i in reversed(range(len(heads))):
            first[entropies_nats(test[i]) <= sure[i]] = i
        shares = np.bincount(first, minlength=len(places)) / len(first)
        accuracies = (100 * np.choose(first, right_test).mean(), 100 * right_test[-1].mean())
        rows.append(
            (f"{most:g}", " / ".join(f"{bound:.3f}" for bound in sure), " / ".join(f"{100 * s:.1f}" for s in shares),
             *(f"{percent:.2f}" for percent in accuracies), f"{shares @ waited_ms:.1f}", f"{trunk_ms[-1]:.1f}")
        )  # fmt: skip
    _print("may lose | entropy at most | leave % | accuracy % | without % | mean ms | without ms", rows)


def _print(title: str, rows: list[tuple[object, ...]]) -> None:
    print(f"| {title} |\n{'|---' * (title.count('|') + 1)}|")
    for row in rows:
        print(f"| {' | '.join(map(str, row))} |")
    print()


if __name__ == "__main__":
    main()
