"""Search instances for benchmarks: networks, devices and recorded links, on one shared variant library a network."""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

from modeltree.link.scenes import load_trace
from modeltree.slicing import slice_blocks
from nas.cli.search import default_cache
from nas.compression.library import Library
from nas.compression.predictor import Predictor
from nas.config import SearchConfig
from nas.search import knowledge, scenario_of
from nas.training.base_network import Prepared, prepare
from nas.treesearch.search_spaces import SearchSpaces, build_search_spaces

BASES, DEVICES = ("vgg11", "alexnet"), ("phone", "pi4")


def arguments(doc: str | None, **defaults: int) -> argparse.Namespace:
    """Where data, weights and traces are, and whole numbers with their defaults."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="imagefolder:DIR or cifar10:DIR")
    parser.add_argument("--weights", required=True, help="folder with BASE_cifar10_jpeg.safetensors")
    parser.add_argument("--traces", required=True, help="folder of CSV traces")
    parser.add_argument("--cache", type=Path, default=default_cache())
    parser.add_argument("--bases", nargs="*", default=BASES)
    for name, value in defaults.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    return parser.parse_args()


def learnt(options: argparse.Namespace) -> Iterator[tuple[str, SearchConfig, Prepared, Library, Predictor]]:
    """Per base: its name, a config, and what is known of it (from the cache, where a search left it)."""
    for base in options.bases:
        weights = str(Path(options.weights) / f"{base}_cifar10_jpeg.safetensors")
        config = SearchConfig(base=base, data=options.data, weights=weights, device="phone")
        with tempfile.TemporaryDirectory() as scratch:
            prepared = prepare(config, Path(scratch), options.cache, lambda *_: None)
            library, predictor, _, _ = knowledge(config, prepared, options.cache)
            yield base, config, prepared, library, predictor


def benches(options: argparse.Namespace) -> Iterator[tuple[str, str, str, SearchSpaces]]:
    """(base, device, trace, spaces) for every combination."""
    for base, config, prepared, library, predictor in learnt(options):
        cuts = slice_blocks(prepared.network.spec, config.N)
        for device in DEVICES:
            for path in sorted(Path(options.traces).glob("*.csv")):
                scenario = scenario_of(
                    SearchConfig(device=device), load_trace(path, seed=0)
                )  # fmt: skip
                spaces = build_search_spaces(
                    prepared.network,
                    library,
                    predictor,
                    scenario,
                    cuts,
                    single_root=False,
                    max_loss=SearchConfig().max_loss,
                )
                yield base, device, path.stem, spaces
