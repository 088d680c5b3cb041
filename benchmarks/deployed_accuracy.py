"""Top-1 of `nas run` over files against what was measured in torch on the arrays that training's loader made of them.

    python benchmarks/deployed_accuracy.py --out WORK --data imagefolder:DIR --base vgg11 --weights W [--image-size 32]
    python benchmarks/deployed_accuracy.py --out WORK --run runs/mine

Without `--run` the network is not searched: the whole of it on the device is the tree, and its accuracy is measured as
a search measures it. With it, the run's tree is taken, and the accuracy of the paths that are taken is the report's.
`nas run` is shown a folder of links to the test images that the report was measured on (a search that is given weights
takes a fifth of the test part for itself), and says beside its own top-1 what the report says.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np

from compile.bundle import Wanted, compile_run
from compile.targets import host
from modeltree.files import write_bytes
from modeltree.link.bandwidth import BandwidthTypes
from modeltree.tree import BandwidthFork, Leaf, ModelTree, Node, encode_tree
from nas.compression.accuracy import top1
from nas.config import SearchConfig, decode_config
from nas.data.split import stratified
from nas.jobs.machine import commit, load_average, processor, today
from nas.training.base_network import Prepared, prepare
from nas.training.block_files import write_block
from runtime.images.folders import image_files, subfolders

_BATCH = 200


def unsearched(prepared: Prepared, config: SearchConfig, run: Path) -> None:
    """A run directory whose tree is the whole network on the device, with its accuracy on the test images."""
    test, spec = prepared.dataset.test, prepared.network.spec
    parts = [slice(start, start + _BATCH) for start in range(0, len(test), _BATCH)]
    right = sum(
        top1(prepared.model, prepared.dataset.normalise(np.asarray(test.images[part])), test.labels[part])
        * len(test.labels[part])
        for part in parts
    )  # fmt: skip
    whole = prepared.network.between(0, len(spec.places) - 1)
    node = Node(
        id=0, level=0, parent=None, fork=BandwidthFork(types=(0,)), partition=1, segments=1, actions=(), device_ms=0.0,
        block=write_block(whole, spec.input_shape, run / "blocks"),
        leaf=Leaf(chance=1.0, latency_ms=0.0, accuracy=right / len(test), accuracy_origin="measured"),
    )  # fmt: skip
    types = BandwidthTypes(representative_mbps=(1.0,), edges_mbps=(), transition=((1.0,),), initial=(1.0,))
    data = prepared.dataset
    tree = ModelTree(
        base=config.base, input_shape=spec.input_shape, mean=data.mean, std=data.std, classes=data.classes,
        picture=data.picture, places=(0, len(spec.places) - 1), types=types, rtt_ms=0.0, device="none", cloud="none",
        trace="none", nodes=(node,),
    )  # fmt: skip
    write_bytes(run / "tree.json", encode_tree(tree))


def linked_test_images(config: SearchConfig, folder: Path) -> int:
    """Links to the test images of the report, in folders of their classes; returns how many."""
    root = Path(config.data.partition(":")[2])
    home = root / ("test" if (root / "test").is_dir() else "val")
    files = [(file, label) for label, part in enumerate(subfolders(home)) for file in image_files(part)]
    if config.weights is not None:
        labels = np.array([label for _, label in files])
        kept, _ = stratified(labels, min(2000, int(0.2 * len(files))), np.random.default_rng(config.seed))
        files = [files[position] for position in kept]
    for file, _ in files:
        link = folder / file.relative_to(home)
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink():
            link.symlink_to(file.resolve())
    return len(files)


def main() -> None:
    """Prepare, compile, run, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--data")
    parser.add_argument("--base", default="vgg11")
    parser.add_argument("--weights")
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    run = options.run or options.out / "run"
    if options.run is not None:
        config = decode_config((run / "config.json").read_bytes(), str(run))
    else:
        config = SearchConfig(
            base=options.base, data=options.data, weights=options.weights, image_size=options.image_size,
            seed=options.seed,
        )  # fmt: skip
        run.mkdir(parents=True, exist_ok=True)
        unsearched(prepare(config, run, options.out / "cache", lambda *_: None), config, run)
    bundle = options.out / "bundle"
    if not bundle.exists():
        compile_run(run, bundle, Wanted(targets=[host()], cloud_targets=[host()]))
    count = linked_test_images(config, options.out / "test")
    words = [sys.executable, "-c", "from nas.cli import main; main()", "run", str(bundle), str(options.out / "test")]
    lines = subprocess.run(
        [*words, "--labels", "--json", "--threads", "1"], capture_output=True, text=True, check=True, env=os.environ
    ).stdout.splitlines()  # fmt: skip
    found = json.loads(lines[-1])
    print(
        f"{config.base}, {count} test images at {config.image_size}: nas run {found['top1']:.3f} %, the report "
        f"{found['report']:.3f} %, difference {found['top1'] - found['report']:+.3f} points; {processor()}, commit "
        f"{commit()}, {today()}, load {load_average():.1f}"
    )
    write_bytes(options.out / "found.json", msgspec.json.encode(found))


if __name__ == "__main__":
    main()
