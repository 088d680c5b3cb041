"""What share of a network's multiply-accumulates some technique applies to: `python benchmarks/applicable.py BASE...`.

Weights do not matter, so bases have random ones. `--without NAME` leaves techniques out, to see what each adds.
"""

import argparse

import torch

from nas.bases import build
from nas.compression.library import candidates
from transforms import TECHNIQUES, Network, analyse, export
from transforms.graph.describe import module_specs


def share(network: Network, names: list[str]) -> float:
    """Percent of the MACs of all layers that lie in units to which a technique applies."""
    covered = {unit for unit, _ in candidates(network, names)[0]}
    inside = sum(
        layer.macs
        for unit in network.units
        if unit.index in covered
        for layer in module_specs(unit.module(), unit.in_shape)
    )
    return 100.0 * inside / network.spec.macs()


def main() -> None:
    """Print a row a network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bases", nargs="+")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--without", action="append", default=[])
    options = parser.parse_args()
    torch.set_num_threads(1)
    names = [name for name in TECHNIQUES if name not in options.without]
    for base in options.bases:
        model = build(base, num_classes=options.classes, image_size=options.image_size)
        network = analyse(export(model, (3, options.image_size, options.image_size)))
        print(f"{base}: {share(network, names):.1f} % of {network.spec.macs() / 1e6:.0f} million MACs")


if __name__ == "__main__":
    main()
