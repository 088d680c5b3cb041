"""3x3 convolutions of resnet18 at 224: the fastest direct tile against the fastest one in Winograd's basis.

    python benchmarks/winograd.py [64x56 128x28 256x14 512x7]

One thread, batch 1, a 1x1 in front so that channels lie in blocks, relu behind; every tile is timed.
"""

import sys

import msgspec
import torch
from torch import nn

from compile import tuning
from compile.pipeline import compile_block
from compile.targets import host
from transforms import export


def main(layers: list[str]) -> None:
    print("| channels, map | direct ms | in the basis ms | ratio |\n|---|---|---|---|")
    timed, target = tuning.timed, msgspec.structs.replace(host(), threads=1)
    for layer in layers:
        channels, side = map(int, layer.split("x"))
        network = nn.Sequential(nn.Conv2d(16, channels, 1), nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU())
        found = {}

        def noted(kernel, target, found=found):
            seconds = timed(kernel, target)
            if kernel.name == "conv3x3":
                found.update(seconds)
            return seconds

        tuning.timed = noted
        torch.manual_seed(0)
        compile_block(export(network.eval(), (16, side, side)), target)
        fast = 1e3 * min(s for tile, s in found.items() if "winograd" in dict(tile))
        direct = 1e3 * min(s for tile, s in found.items() if "winograd" not in dict(tile))
        print(f"| {channels}, {side}x{side} | {direct:.2f} | {fast:.2f} | {fast / direct:.2f} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:] or ["64x56", "128x28", "256x14", "512x7"])
