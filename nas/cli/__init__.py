"""The command line: one file a verb, heavy imports inside it."""

import sys
import warnings
from collections.abc import Callable
from typing import Any

import typer

from modeltree.errors import NasError, Remark
from nas.cli.bench import bench
from nas.cli.compile import compile_tree
from nas.cli.decisions.place import place
from nas.cli.decisions.policy import policy
from nas.cli.deployed.doctor import doctor
from nas.cli.deployed.run import run
from nas.cli.deployed.serve import serve
from nas.cli.deployed.servers import servers
from nas.cli.display.streams import end_if_full, end_unless_written, prepare_streams
from nas.cli.links.emulate import emulate
from nas.cli.links.field import field
from nas.cli.links.record import record
from nas.cli.links.refit import refit
from nas.cli.links.stream import stream
from nas.cli.profile import profile
from nas.cli.search import search
from nas.cli.show import show
from nas.cli.train import train
from nas.cli.usage import ClickException, usage_text

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
app.command()(doctor)
app.command()(run)
app.command()(emulate)
app.command()(field)
app.command()(record)
app.command()(refit)
app.command()(place)
app.command()(servers)
app.command()(stream)
app.add_typer(policy, name="policy")

INTERRUPTED = 130

EXTRAS = {
    "tvm": "compile", "ml_dtypes": "compile", "ziglang": "compile", "torch": "search", "torch_pruning": "search",
    "tensorly": "search", "networkx": "search", "sklearn": "search", "scipy": "search", "safetensors": "search",
    "gymnasium": "search", "jinja2": "search", "altair": "search", "grpc": "cloud", "google": "cloud",
    "prometheus_client": "cloud", "httptools": "cloud", "onnx": "bench", "onnxscript": "bench", "onnxruntime": "bench",
    "openvino": "bench",
}  # fmt: skip
"""What brings a package that a verb may lack."""


def main() -> None:
    """Run the command line. Whatever the user can mend is one line on standard error and status 2."""
    prepare_streams()
    warnings.filterwarnings("ignore", module=r"PIL\.")  # of damaged pictures, of which we say what there is to say
    warnings.showwarning = _told_in_a_line(warnings.showwarning)
    try:
        sys.exit(app(standalone_mode=False) or 0)
    except ClickException as error:
        print(usage_text(error), file=sys.stderr)
        sys.exit(2)
    except NasError as error:
        print(f"nas: {error}", file=sys.stderr)
        sys.exit(2)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS:
            raise
        extra = f"pip install 'nas-modeltree[{EXTRAS[package]}]'"
        print(f"nas: {package} is not installed: {extra}, or -e '.[{EXTRAS[package]}]' in a clone", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        end_if_full(error, sys.stdout)
        raise
    except SystemExit as end:  # typer's own way to end, after Ctrl-C too, which it does not put in words
        if end.code == INTERRUPTED:
            again = "start it again with --resume" if sys.argv[1:2] == ["search"] else "start it again in the same way"
            print(f"nas: interrupted: {again} to go on", file=sys.stderr)
        end_unless_written(sys.stdout)
        raise


def _told_in_a_line(otherwise: Callable[..., None]) -> Callable[..., None]:
    def show(message: Warning | str, category: type[Warning], *rest: Any, **named: Any) -> None:
        if issubclass(category, Remark):
            print(f"nas: {message}", file=sys.stderr)
        else:
            otherwise(message, category, *rest, **named)

    return show
