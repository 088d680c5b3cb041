"""Options that say what a network takes, alike in every verb that reads images."""

from typing import Annotated, Any

import typer

ImageSize = Annotated[
    str,
    typer.Option(
        "--image-size", help="Of the input in pixels: one number for a square, or WIDTHxHEIGHT such as 160x120"
    ),
]
Channels = Annotated[
    str, typer.Option("--channels", help="What the network takes: RGB, BGR or L (one channel, grey)")
]  # fmt: skip
Resize = Annotated[
    str, typer.Option("--resize", help="A picture of other proportions is cut (shorter-side) or bent (stretch)")
]
Mean = Annotated[
    str,
    typer.Option(
        "--mean",
        help="What pixels of 0..1 were normalised by in training, such as 0.485,0.456,0.406; the training images' own "
        "mean unless said",
    ),
]
Std = Annotated[str, typer.Option("--std", help="Likewise the deviation, such as 0.229,0.224,0.225")]


def picture_settings(*, image_size: str, channels: str, resize: str, mean: str, std: str) -> dict[str, Any]:
    """What `SearchConfig` calls these options.

    Raises
    ------
    ConfigError : a mean or deviation is no list of numbers.
    """
    size = image_size.strip()
    return {
        "image_size": int(size) if size.isdecimal() else size,
        "channels": channels,
        "resize": resize,
        "mean": tuple(numbers("mean", mean, float)),
        "std": tuple(numbers("std", std, float)),
    }


def numbers(name: str, text: str, kind: Any) -> list[Any]:
    """The numbers of an option such as `4,8`.

    Raises
    ------
    ConfigError : something in it is no number.
    """
    from modeltree.errors import ConfigError

    try:
        return [kind(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise ConfigError(f"--{name} is {text!r}: it must be numbers with commas between, such as 4,8") from None
