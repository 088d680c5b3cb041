"""`nas train`: train a base network and write its weights."""

from pathlib import Path
from typing import Annotated

import typer


def train(
    base: Annotated[str, typer.Option("--base", help="A known network or file.py:factory")] = "vgg11",
    data: Annotated[str, typer.Option("--data", help="digits, cifar10:DIR, or imagefolder:DIR")] = "digits",
    epochs: Annotated[int | None, typer.Option("--epochs", help="Passes over the data")] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of weights, order, augmentation and split")] = 0,
    out: Annotated[Path, typer.Option("--out", help="Where the weights go")] = Path("weights.safetensors"),
    image_size: Annotated[int, typer.Option("--image-size", help="Height and width in pixels")] = 32,
    device_name: Annotated[str, typer.Option("--device-name", help="torch's: cpu, cuda, cuda:1")] = "cpu",
    cache: Annotated[
        Path | None, typer.Option("--cache", help="Folder for decoded images; ~/.cache/nas unless said")
    ] = None,
) -> None:
    """Train a base network. An interrupted run goes on where it stopped when it is started again in the same way."""
    from rich.progress import Progress

    from nas.bases import build, save_weights
    from nas.cli.search import default_cache
    from nas.data import load_dataset
    from nas.train import accuracy, recipe
    from nas.train import train as train_network

    dataset = load_dataset(data, image_size=image_size, seed=seed, cache=cache or default_cache())
    network = build(base, num_classes=len(dataset.classes), image_size=image_size, seed=seed)
    config = recipe(dataset, epochs=epochs, seed=seed)
    state = out.with_name(out.name + ".part")
    with Progress(transient=True) as bar:
        task = bar.add_task("training", total=None)
        network = train_network(
            network,
            dataset,
            config,
            device=device_name,
            checkpoint=state,
            progress=lambda done, total, text: bar.update(task, completed=done, total=total, description=text),
        )
    save_weights(network, out)
    state.unlink(missing_ok=True)
    percent = accuracy(network, dataset.test, dataset, device=device_name)
    print(f"{base} on {dataset.name}: {percent:.2f} % of {len(dataset.test)} test images, {config.epochs} epochs")
    print(f"weights: {out}")
