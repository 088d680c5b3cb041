"""The command line: one file a verb, heavy imports inside it."""

import sys

import click
import typer

from modeltree.errors import NasError
from nas.cli.search import search
from nas.cli.show import show
from nas.cli.train import train

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Neural architecture search and model trees for device-edge-cloud inference.",
)
app.command()(search)
app.command()(show)
app.command()(train)

INTERRUPTED = 130


def main() -> None:
    """Run the command line. Whatever the user can mend is one line on standard error and status 2."""
    try:
        status = app(standalone_mode=False)
    except click.exceptions.Abort:
        status = INTERRUPTED
    except click.ClickException as error:
        error.show()
        status = error.exit_code
    except NasError as error:
        print(f"nas: {error}", file=sys.stderr)
        status = 2
    except KeyboardInterrupt:
        print("nas: interrupted: start it again with --resume to go on", file=sys.stderr)
        status = INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()
        status = 1
    sys.exit(status or 0)
