"""The command line: one file a verb, heavy imports inside it."""

import sys

import typer

from modeltree.errors import NasError
from nas.cli.bench import bench
from nas.cli.compile import compile_tree
from nas.cli.emulate import emulate
from nas.cli.field import field
from nas.cli.place import place
from nas.cli.policy import policy
from nas.cli.profile import profile
from nas.cli.record import record
from nas.cli.run import run
from nas.cli.search import search
from nas.cli.serve import serve
from nas.cli.show import show
from nas.cli.stream import stream
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
app.command("compile")(compile_tree)
app.command()(profile)
app.command()(bench)
app.command()(serve)
app.command()(run)
app.command()(emulate)
app.command()(field)
app.command()(record)
app.command()(place)
app.command()(stream)
app.add_typer(policy, name="policy")

INTERRUPTED = 130


def main() -> None:
    """Run the command line. Whatever the user can mend is one line on standard error and status 2."""
    try:
        app()
    except NasError as error:
        print(f"nas: {error}", file=sys.stderr)
        sys.exit(2)
    except SystemExit as end:  # typer's own way to end, after Ctrl-C too, which it does not put in words
        if end.code == INTERRUPTED:
            again = "start it again with --resume" if sys.argv[1:2] == ["search"] else "start it again in the same way"
            print(f"nas: interrupted: {again} to go on", file=sys.stderr)
        raise
