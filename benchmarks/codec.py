"""Bytes and time of frames on real feature maps: every place of a trained network, every width.

    python benchmarks/codec.py --run runs/demo --images DATA/test [--count 16] [--bits 4 8] [--rounds 50]

`bytes` is the whole frame, `payload` without header and checksum; `entropy` is the zero-order entropy of the codes
(above 8 bits: of their two byte planes, each for itself); `excess` compares the last two; `modelled` is the share of
frames that go without a table (method 2 of docs/wire.md). Times are the fastest of
the rounds, so that other work on a shared machine counts little; `us/kB` is per 1000 raw bytes (float32, or pixels),
first to encode, then to decode.
"""

import argparse
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from compile.program_file import read_program
from modeltree.tree import decode_tree
from nas.jobs.machine import load_average, processor, today
from runtime.images import image_files, pixels_of
from runtime.wire import frames
from runtime.wire.codec import Packing, quantise
from transforms.graph.network import analyse

WIDTHS = [1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 32]


@dataclass(frozen=True, kw_only=True)
class Row:
    """Means over the images.

    raw_bytes : of the numbers as the network has them. entropy_bytes : NaN with 32 bits.
    """

    raw_bytes: float
    frame_bytes: float
    payload_bytes: float
    entropy_bytes: float
    modelled: float
    encode_us: float
    decode_us: float

    def text(self) -> str:
        kb = self.raw_bytes / 1000
        entropy = f"{self.entropy_bytes:.0f} | {self.payload_bytes / self.entropy_bytes - 1:+.1%}"
        entropy = "- | -" if np.isnan(self.entropy_bytes) else entropy
        return (
            f"{self.raw_bytes:.0f} | {self.frame_bytes:.0f} | {self.raw_bytes / self.frame_bytes:.1f} | "
            f"{self.payload_bytes:.0f} | {entropy} | {self.modelled:.0%} | "
            f"{self.encode_us:.0f} | {self.decode_us:.0f} | {self.encode_us / kb:.2f} | {self.decode_us / kb:.2f}"
        )


HEAD = "raw | bytes | fewer | payload | entropy | excess | modelled | encode us | decode us | us/kB | us/kB"


def feature_maps(run: Path, images: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """What crosses at every place behind the image, and the image as it was; (images, ...) each."""
    tree = decode_tree((run / "tree.json").read_bytes(), str(run / "tree.json"))
    network = analyse(read_program(run / "base.pt2"))
    yield "0 pixels", images
    x = torch.from_numpy(tree.preprocessing.normalised(images))
    for place in network.spec.places[1:-1]:
        x = network.between(place.index - 1, place.index)(x)
        yield f"{place.index} {place.after} {'x'.join(map(str, place.shape))}", x.numpy()


def measured(maps: np.ndarray, bits: int, rounds: int) -> Row:
    """One image a frame."""
    found = [_measured(maps[i : i + 1], bits, rounds) for i in range(len(maps))]
    means = np.mean(found, axis=0)
    return Row(
        raw_bytes=maps[0].nbytes, frame_bytes=means[0], payload_bytes=means[1], entropy_bytes=means[2],
        modelled=means[3], encode_us=means[4], decode_us=means[5],
    )  # fmt: skip


def _measured(x: np.ndarray, bits: int, rounds: int) -> tuple[float, ...]:
    frame = frames.encode(x, bits)
    header = frames.read_header(frame)
    return (
        len(frame), header.payload_bytes, entropy_bytes(x, bits), header.method is Packing.MODELLED,
        fastest_us(lambda: frames.encode(x, bits), rounds),
        fastest_us(lambda: frames.decode(frame, shape=x.shape, dtype=x.dtype), rounds),
    )  # fmt: skip


def entropy_bytes(x: np.ndarray, bits: int) -> float:
    if bits == 32:
        return float("nan")
    q = x if x.dtype == np.uint8 else quantise(x, bits).q
    return sum(_zero_order_bytes(plane) for plane in ([q] if bits <= 8 else [q >> 8, q & 255]))


def _zero_order_bytes(symbols: np.ndarray) -> float:
    counts = np.unique(symbols, return_counts=True)[1]
    return float((counts * np.log2(symbols.size / counts)).sum() / 8)


def fastest_us(call: Callable[[], object], rounds: int) -> float:
    best = float("inf")
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return 1e6 * best


def total(rows: list[Row]) -> Row:
    """All places together, as if each crossed once."""
    return Row(**{name: sum(getattr(row, name) for row in rows) / (len(rows) if name == "modelled" else 1)
                  for name in Row.__dataclass_fields__})  # fmt: skip


def main() -> None:
    """Run the network, code every map, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="a run directory: its base.pt2 and tree.json")
    parser.add_argument("--images", type=Path, required=True, help="a folder of images")
    parser.add_argument("--count", type=int, default=16)
    parser.add_argument("--bits", type=int, nargs="+", default=WIDTHS)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    tree = decode_tree((options.run / "tree.json").read_bytes(), str(options.run / "tree.json"))
    files = image_files(options.images)
    chosen = np.random.default_rng(options.seed).choice(len(files), options.count, replace=False)
    images = np.stack([pixels_of(files[i], tree.preprocessing) for i in chosen])
    print(f"{tree.base}, {options.count} images; {processor()}, one thread, load {load_average():.1f}, {today()}; "
          f"numpy {np.__version__}, zlib {zlib.ZLIB_RUNTIME_VERSION}\n")  # fmt: skip
    print(f"| place | bits | {HEAD} |\n|{'---|' * 13}")
    found: dict[int, list[Row]] = {bits: [] for bits in options.bits}
    with torch.inference_mode():
        for name, maps in feature_maps(options.run, images):
            for bits in [8] if maps.dtype == np.uint8 else options.bits:
                row = measured(maps, bits, options.rounds)
                print(f"| {name} | {bits} | {row.text()} |", flush=True)
                if maps.dtype != np.uint8:
                    found[bits].append(row)
    for title, least in (("all places", 0), ("maps of 16 kB and more", 16_000)):
        for bits, rows in found.items():
            print(f"| {title} | {bits} | {total([row for row in rows if row.raw_bytes >= least]).text()} |")


if __name__ == "__main__":
    main()
