"""`nas refit`: profiles mended by what trees met where they ran."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from modeltree.met import Met
    from nas.refit import Missed, Refitted


def refit(
    measured: Annotated[Path, typer.Argument(help="nas field's folder or field.json, or what nas run --met wrote")],
    run: Annotated[
        list[Path] | None,
        typer.Option(help="Run directory that the bundle was compiled from: its blocks say which layers took how long. "
                     "May be given again. Without, a profile is scaled as a whole"),
    ] = None,
    device: Annotated[str | None, typer.Option(help="Profile that the tree was searched with")] = None,
    cloud: Annotated[str | None, typer.Option(help="Likewise of the server")] = None,
    check: Annotated[
        list[Path] | None,
        typer.Option(help="What another field run or session met: say how far off the mended profiles are there"),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for device.json, cloud.json and met.json")] = Path("runs/refit"),
) -> None:  # fmt: skip
    """Mend the profiles of a device and a server by what a field run or a session met; say how far off they were."""
    from modeltree.errors import ConfigError
    from modeltree.files import check_writable
    from modeltree.met import read_met, write_met
    from modeltree.profiles import load_profile, save_profile
    from nas.refit import errors_of, refitted

    runs = run or []
    met, others = read_met(measured), [read_met(path) for path in check or []]
    if runs:
        from nas.refit.runs import with_layers

        met, others = with_layers(met, runs), [with_layers(other, runs) for other in others]
    for other in others:
        if (other.device, other.cloud) != (met.device, met.cloud):
            raise ConfigError(
                f"what {other.origin} met was predicted with {other.device} and {other.cloud}: --check takes what was "
                f"predicted with {met.device} and {met.cloud}"
            )
    found = refitted(met, load_profile(device or met.device), load_profile(cloud or met.cloud))
    for name in ("device.json", "cloud.json", "met.json"):
        check_writable(out / name)
    save_profile(found.device, out / "device.json")
    save_profile(found.cloud, out / "cloud.json")
    write_met(met, out / "met.json")
    _print(met, found, errors_of(met, found))
    for other in others:
        _print_errors(
            f"What {other.origin} met, predicted with the mended profiles:", errors_of(other, found, same=False)
        )
    print(f"{out / 'device.json'}, {out / 'cloud.json'}, {out / 'met.json'}")
    print(
        f"Search with all of it: nas search --device {met.device} --cloud {met.cloud} --measured {out / 'met.json'} ..."
    )


def _print(met: "Met", found: "Refitted", rows: "Sequence[Missed]") -> None:
    _print_errors(f"What {met.origin} met of what {met.device} and {met.cloud} had predicted:", rows)
    if met.blocks and not any(one.layers for one in met.blocks.values()):
        print("Layers were not told apart: pass the search's directory with --run.")
    if (crossed := met.crossed) is not None:
        print(
            f"{crossed.count} hand-overs: {crossed.extra_ms:.2f} ms beside a round trip of {crossed.rtt_ms:.4g} ms and "
            f"their bytes, {crossed.message_bytes:.0f} bytes beside what crosses"
        )
    if (known := met.estimates) is not None:
        print(
            f"The bandwidth was {100 * known.error:.0f} % off on the median (|ln|), its type right in "
            f"{100 * known.right:.0f} % of {known.count}"
        )


def _print_errors(title: str, rows: "Sequence[Missed]") -> None:
    print(title)
    print(f"  {'part':10} {'kinds':>5} {'median error %':>15} {'after the refit':>16} {'each left out':>14}")
    for row in rows:
        left = "" if math.isnan(row.left_out) else f"{100 * row.left_out:.1f}"
        print(f"  {row.part:10} {row.kinds:5} {100 * row.before:15.1f} {100 * row.after:16.1f} {left:>14}")
