"""`nas search`: find a model tree."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nas.cli.picture_options import Channels, ImageSize, Mean, Resize, Std, numbers, picture_settings
from nas.names import EXECUTORS, IMAGE_CODES, METHODS, NUMBER_FORMATS, TECHNIQUE_NAMES

if TYPE_CHECKING:
    from nas.expected_time import Expected

_CORES = os.cpu_count() or 1


def search(
    base: Annotated[
        str, typer.Option(help="vgg11, vgg16, alexnet, alexnet_exits, alexnet_exits4, nin, resnet32, file.py:factory")
    ] = "vgg11",
    bandwidth_types: Annotated[int, typer.Option("--K", help="Bandwidth types the tree forks on")] = 2,
    blocks: Annotated[int, typer.Option("--N", help="Blocks the network is sliced into")] = 3,
    data: Annotated[
        str, typer.Option(help="digits, cifar10:DIR, imagefolder:DIR, or images:DIR, pictures without classes")
    ] = "digits",
    weights: Annotated[
        str | None,
        typer.Option(help="Trained weights (.safetensors, .pth), or factory: as it made them; trained first without"),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(help="Your own measure of answers, file.py:name; see docs/tasks.md"),
    ] = None,
    outputs: Annotated[
        str,
        typer.Option(
            help="How answers that are no vector of classes are held against the base network's, NAME=KIND with commas "
            "between: classes, pixels, embedding or numbers; by their shapes unless said"
        ),
    ] = "",
    allow_chance: Annotated[
        bool, typer.Option("--allow-chance", help="Go on with a network that is right no more often than a guess")
    ] = False,
    image_size: ImageSize = "32",
    channels: Channels = "RGB",
    resize: Resize = "shorter-side",
    mean: Mean = "",
    std: Std = "",
    trace: Annotated[str, typer.Option(help="A shipped scene, or a CSV or mahimahi file")] = "wifi_edge",
    rtt_ms: Annotated[float | None, typer.Option(help="Round-trip time; the scene's unless said")] = None,
    device: Annotated[str, typer.Option(help="phone, pi4, pi5_ncnn, another shipped profile, or one's file")] = (
        "zero2w_ncnn_1t"
    ),
    cloud: Annotated[str, typer.Option(help="cloud_gpu, cloud_cpu, or a profile's file")] = "cloud_gpu",
    method: Annotated[
        list[str] | None,
        typer.Option(
            help=f"One of {', '.join(METHODS)}; may be given again. All unless said. With exits or bits a search adds "
            "plain_tree and actions by itself"
        ),
    ] = None,
    technique: Annotated[
        list[str] | None, typer.Option(help=f"One of {', '.join(TECHNIQUE_NAMES)}; may be given again. All unless said")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of everything random")] = 0,
    max_loss: Annotated[float, typer.Option(help="Predicted points of accuracy a path may lose; 100: any")] = 0.8,
    max_latency_ms: Annotated[
        float, typer.Option(help="Latency that is worth nothing: a millisecond costs 150 / this points of accuracy")
    ] = 500.0,
    budget: Annotated[int, typer.Option(help="Episodes of the tree search")] = 2000,
    forks: Annotated[str, typer.Option(help="Chances at forks: independent (the paper) or markov (as the trace)")] = (
        "independent"
    ),
    measure: Annotated[
        str, typer.Option(help="Value forks as if the type were known (perfect) or as the runtime knows it (estimated)")
    ] = "perfect",
    measured: Annotated[
        Path | None, typer.Option(help="Reckon with what was met: nas field's folder, or what nas run --met wrote")
    ] = None,
    single_root: Annotated[bool, typer.Option("--single-root", help="Do not fork before the first block")] = False,
    exits: Annotated[str, typer.Option(help="Early exits as forks: none, auto, or places such as 4,7")] = "none",
    bits: Annotated[
        str, typer.Option(help="Widths of coded hand-overs as forks, such as 4,8; plain ones always are")
    ] = "",
    bottleneck: Annotated[
        str, typer.Option(help="Shares of the channels that a learned bottleneck at a hand-over keeps, such as 0.25")
    ] = "",
    image_codes: Annotated[
        str,
        typer.Option(help="How the picture itself may cross: its own file (came), jpeg:Q, webp:Q, jpeg:Q@SIDE, none"),
    ] = ",".join(IMAGE_CODES),
    time_here: Annotated[
        bool,
        typer.Option("--time-here", help="The device is this machine: time every compression, offer what saves"),
    ] = False,
    energy_mj: Annotated[
        float | None, typer.Option(help="What an inference may take from the battery on average, in mJ")
    ] = None,
    formats: Annotated[
        str,
        typer.Option(
            help=f"Number formats a block may be computed in: {','.join(NUMBER_FORMATS)}, as the device's "
            "profile prices them (nas profile --format)"
        ),
    ] = "f32",
    distillation: Annotated[str, typer.Option(help="block (variants once) or branch (every network whole)")] = "block",
    finetune_steps: Annotated[int | None, typer.Option(help="Of joint fine-tuning; 0 leaves it out")] = None,
    fair_chances: Annotated[bool, typer.Option(help="Force exploration of deeper blocks at first")] = True,
    boosting: Annotated[bool, typer.Option(help="Start the tree from the optimal branches")] = True,
    pool: Annotated[bool, typer.Option(help="Never evaluate a composed network twice")] = True,
    executor: Annotated[str, typer.Option(help=f"One of {', '.join(EXECUTORS)}")] = "processes",
    workers: Annotated[int, typer.Option(help="Processes, and threads of the main one")] = _CORES,
    out: Annotated[Path | None, typer.Option(help="Run directory; runs/BASE-TRACE-DEVICE-SEED unless said")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run")] = False,
    cache: Annotated[
        Path | None, typer.Option(help="Trained bases, variants and decoded images; ~/.cache/nas unless said")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON and nothing else")] = False,
) -> None:
    """Search a model tree for a network, a device, a cloud and the link between them.

    With nothing said it uses scikit-learn's digits and trains the network first.
    """
    from nas.config import SearchConfig

    config = SearchConfig(
        base=base, K=bandwidth_types, N=blocks, data=data, weights=weights, trace=trace,
        rtt_ms=rtt_ms, device=device, cloud=cloud, methods=tuple(method or METHODS),
        techniques=tuple(technique or TECHNIQUE_NAMES), seed=seed, max_loss=max_loss,
        max_latency_ms=max_latency_ms, budget=budget, forks=forks,
        measure=measure, measured=None if measured is None else str(measured),
        single_root=single_root, distillation=distillation, finetune_steps=finetune_steps,
        fair_chances=fair_chances, boosting=boosting, pool=pool, exits=exits, bits=tuple(numbers("bits", bits, int)),
        bottleneck=tuple(numbers("bottleneck", bottleneck, float)), energy_mj=energy_mj,
        time_here=time_here,
        image_codes=() if image_codes == "none" else tuple(filter(None, map(str.strip, image_codes.split(",")))),
        formats=tuple(filter(None, map(str.strip, formats.split(",")))),
        executor=executor, workers=workers, allow_chance=allow_chance, metric=metric,
        outputs=tuple(filter(None, map(str.strip, outputs.split(",")))),
        **picture_settings(image_size=image_size, channels=channels, resize=resize, mean=mean, std=std),
    )  # fmt: skip
    folder = out or Path("runs") / f"{_base_stem(base)}-{_stem(trace)}-{_stem(device)}-{seed}"

    from nas.cli.display.progress import stages
    from nas.search import search as run_search

    with stages(quiet=as_json) as progress:
        found = run_search(
            config, folder, cache=cache or default_cache(), resume=resume, progress=progress,
            foresees=None if as_json else _tell,
        )  # fmt: skip
    if as_json:
        import json

        print(json.dumps(found.summary))
        return
    from nas.cli.show import print_run

    print_run(found.folder, found.summary, found.tree)
    if data == "digits":
        print(
            "\nThese were scikit-learn's digits. Go on with CIFAR-10 (--data cifar10:DIR), your own images "
            "(--data imagefolder:DIR),\nnetwork (--base my_model.py:build --weights w.safetensors), "
            "link (--trace trace.csv) or device (--device profile.json).",
            file=sys.stderr,
        )


def _tell(time: "Expected") -> None:
    """One line on standard error: what the search is expected to take, and what that rests on."""
    from nas.cli.display.log import duration

    parts = ", ".join(f"{stage} {duration(spent_s)}" for stage, spent_s in time.seconds.items())
    print(
        f"nas: about {duration(time.total_s)} for the whole search, an estimate ({parts}) from one pass of the "
        f"network, timed as {time.image_ms:.2g} ms an image, and up to {time.variants} variants to make",
        file=sys.stderr, flush=True,
    )  # fmt: skip


def default_cache() -> Path:
    """Where what searches share is kept: NAS_CACHE, or ~/.cache/nas."""
    return Path(os.environ.get("NAS_CACHE", Path.home() / ".cache" / "nas"))


def _stem(name: str) -> str:
    return Path(name.split(":")[0]).stem


def _base_stem(base: str) -> str:
    """A network's name in a folder's: the file's, or the network's where a package comes first."""
    first, _, second = base.partition(":")
    return _stem(base) if first.endswith(".py") or not second else second
