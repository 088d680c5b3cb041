"""What the command line says where its words do not fit: one line, as of every other error."""

from typing import Any

import typer

ClickException: type[Exception] = next(
    one for one in typer.BadParameter.__mro__ if one.__name__ == "ClickException"
)  # typer has its own click, or the package, by its version
"""Base of all that parsing the command line raises."""


def usage_text(error: Any) -> str:
    """A `ClickException` in one line, with where to read more; the whole help where nothing was asked for."""
    message = " ".join(error.format_message().split()).rstrip(".")
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        return error.format_message()
    told = f"{message[:1].lower()}{message[1:]}"
    return f"nas: {told}" if context is None else f"nas: {told}: see {context.command_path} --help"
