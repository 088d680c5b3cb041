"""`nas train`: train a base network, with early exits if asked for, and write its weights."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from nas.cli.picture_options import Channels, ImageSize, Mean, Resize, Std, picture_settings


def train(
    base: Annotated[str, typer.Option("--base", help="A known network or file.py:factory")] = "vgg11",
    data: Annotated[str, typer.Option("--data", help="digits, cifar10:DIR, or imagefolder:DIR")] = "digits",
    exits: Annotated[
        str, typer.Option("--exits", help="Early exits to train with it: none, auto, or places like 4,7")
    ] = "none",
    start: Annotated[Path | None, typer.Option("--from", help="Weights to start from; fresh ones unless said")] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", help="Passes over the data")] = None,
    lr: Annotated[
        float | None, typer.Option("--lr", help="Highest rate; by the size of the data, half as high with --from")
    ] = None,
    bf16: Annotated[
        bool, typer.Option("--bf16", help="Multiply 16-bit numbers on the CPU: faster where it knows them")
    ] = False,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of weights, order, augmentation and split")] = 0,
    out: Annotated[Path, typer.Option("--out", help="Where the weights go")] = Path("weights.safetensors"),
    image_size: ImageSize = "32",
    channels: Channels = "RGB",
    resize: Resize = "shorter-side",
    mean: Mean = "",
    std: Std = "",
    device_name: Annotated[str, typer.Option("--device-name", help="torch's: cpu, cuda, cuda:1")] = "cpu",
    cache: Annotated[
        Path | None, typer.Option("--cache", help="Folder for decoded images; ~/.cache/nas unless said")
    ] = None,
) -> None:
    """Train a base network. An interrupted run goes on where it stopped when it is started again in the same way."""
    from dataclasses import replace

    from modeltree.files import check_writable
    from nas.bases import build, load_weights_
    from nas.cli.display.progress import stages
    from nas.cli.search import default_cache
    from nas.config import SearchConfig
    from nas.data import class_names
    from nas.exits.heads import exit_accuracies, save_with_heads
    from nas.exits.joint import train_jointly
    from nas.exits.places import exit_places
    from nas.training.base_network import dataset_of
    from nas.training.deployability import check_program
    from nas.training.has_learned import fault
    from nas.training.rate import checked_rate
    from nas.training.train import check_recipe, device_named, recipe
    from transforms import analyse, export

    check_recipe(epochs=epochs, lr=lr)
    device_named(device_name)
    check_writable(out)
    told = SearchConfig(
        base=base, data=data, seed=seed,
        **picture_settings(image_size=image_size, channels=channels, resize=resize, mean=mean, std=std),
    )  # fmt: skip
    shape = told.input_shape
    network = build(
        base, num_classes=len(class_names(data, image_size=told.image_size)), image_size=told.image_size, seed=seed,
        channels=shape[0],
    )  # fmt: skip
    program = export(network, shape)
    check_program(program)
    places = exit_places(analyse(program), exits, base=base)
    if start is not None and (notes := load_weights_(network, start)):
        print(f"nas: {start}: {', '.join(notes)}", file=sys.stderr)
    dataset = dataset_of(told, cache or default_cache())
    config = replace(recipe(dataset, epochs=epochs, seed=seed, model=network), bf16=bf16)
    if lr is None and start is None:
        config = checked_rate(network, dataset, config)
    if lr is not None or start is not None:
        config = replace(config, lr=lr if lr is not None else config.lr / 2)
    state = out.with_name(out.name + ".part")
    with stages(quiet=False) as progress:
        network, heads = train_jointly(
            network,
            dataset,
            places,
            config,
            device=device_name,
            checkpoint=state,
            progress=lambda done, total, text: progress("training", done, total, text),
        )
    save_with_heads(network, heads, out)
    state.unlink(missing_ok=True)
    exported = analyse(export(network, shape))
    percents = exit_accuracies(exported, heads, dataset.test, dataset)
    print(f"{base} on {dataset.name}: {percents[-1]:.2f} % of {len(dataset.test)} test images, {config.epochs} epochs")
    for place, percent in zip(heads, percents):
        print(f"exit at place {place} (after {exported.spec.places[place].after}): {percent:.2f} %")
    print(f"weights: {out}")
    if wrong := fault(network, dataset, dataset.test):
        print(
            f"nas: warning: the network has not learnt its classes: {wrong}: train longer (--epochs), with another "
            "rate (--lr), or look at the pictures and their labels",
            file=sys.stderr,
        )
