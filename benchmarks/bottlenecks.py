"""Accuracy and bytes of a hand-over through learned bottlenecks, beside the plain cut, through the real codec.

    python benchmarks/bottlenecks.py --base alexnet --data imagefolder:DIR --weights FILE [--share 0.125] [--bits 4]

A cell is `bytes of the frame (times fewer than float32): accuracy less that without coding`. The bottlenecks are
trained here, for --bits; plain cuts are shown at that width and at 2 bits.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from coding import coded_table

from nas.cli.search import default_cache
from nas.config import SearchConfig
from nas.exits.bottlenecks import train_bottlenecks
from nas.jobs.machine import commit, processor, today
from nas.training.base_network import prepare
from runtime.wire.frames import decode, encode


def main() -> None:
    """Train, measure and print as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("base", "data", "weights"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--share", type=float, nargs="*", default=[0.25, 0.125])
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--cache", type=Path, default=default_cache())
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        config = SearchConfig(base=options.base, data=options.data, weights=options.weights)
        prepared = prepare(config, Path(folder), options.cache, lambda *_: None)
        network, last = prepared.network, len(prepared.network.spec.segments)
        maps = [place for place in network.spec.places[1:-1] if len(place.shape) == 3]
        wanted = [(place.index, round(share * place.shape[0])) for place in maps for share in options.share]
        began = time.perf_counter()
        coders = train_bottlenecks(prepared, wanted, Path(folder), 0, lambda *_: None, bits=options.bits)
        seconds = time.perf_counter() - began
    test = prepared.dataset.test
    chosen = np.sort(np.random.default_rng(0).permutation(len(test))[: options.images])
    images, labels = prepared.dataset.normalise(test.images[chosen]), test.labels[chosen]
    cuts = [place.index for place in maps]
    coded = coded_table(network, [(images, labels)], places=cuts, bits=[2, options.bits, 32])
    rows = {(row.place, row.bits): row for row in coded}
    plain = rows[cuts[0], 32].accuracy
    print(f"{options.base}, {options.images} test images at {plain:.1f} % without coding, bottlenecks trained in "
          f"{seconds:.0f} s; {processor()}, {today()}, commit {commit()}\n")  # fmt: skip
    shares = " | ".join(f"{share:g} of the channels, {options.bits} bits" for share in options.share)
    print(f"| place | shape | plain, {options.bits} bits | plain, 2 bits | {shares} |")
    print("|---" * (4 + len(options.share)) + "|")
    for place in maps:
        raw = rows[place.index, 32].raw_bytes
        cuts_here = [rows[place.index, width] for width in (options.bits, 2)]
        cells = [_cell(raw, row.frame_bytes, row.accuracy - plain) for row in cuts_here]
        for kept in (kept for at, kept in wanted if at == place.index):
            encoder, decoder = coders[place.index, kept]
            with torch.no_grad():
                codes = encoder(network.between(0, place.index)(images)).numpy()
                frames = [encode(np.ascontiguousarray(code[None]), options.bits) for code in codes]
                back = np.concatenate([decode(frame, shape=(1, *codes.shape[1:])) for frame in frames])
                answers = network.between(place.index, last)(decoder(torch.from_numpy(back))).argmax(1).numpy()
            cells.append(_cell(raw, float(np.mean([*map(len, frames)])), 100 * np.mean(answers == labels) - plain))
        print(f"| {place.index} | {'x'.join(map(str, place.shape))} | {' | '.join(cells)} |")


def _cell(raw_bytes: int, frame_bytes: float, gained: float) -> str:
    return f"{frame_bytes:.0f} ({raw_bytes / frame_bytes:.0f}x): {gained:+.1f}"


if __name__ == "__main__":
    main()
