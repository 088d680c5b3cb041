"""`nas refit`: profiles mended by what trees met where they ran."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from modeltree.met import Met
    from nas.refit import Refitted


def refit(
    measured: Annotated[Path, typer.Argument(help="nas field's folder or field.json, or what nas run --met wrote")],
    device: Annotated[str | None, typer.Option(help="Profile that the tree was searched with")] = None,
    cloud: Annotated[str | None, typer.Option(help="Likewise of the server")] = None,
    out: Annotated[Path, typer.Option(help="Folder for device.json and cloud.json")] = Path("runs/refit"),
) -> None:
    """Mend the profiles of a device and a server by what a field run or a session met; say how far off they were."""
    from modeltree.files import check_writable
    from modeltree.met import read_met
    from modeltree.profiles import load_profile, save_profile
    from nas.refit import refitted

    met = read_met(measured)
    found = refitted(met, load_profile(device or met.device), load_profile(cloud or met.cloud))
    for name, profile in (("device", found.device), ("cloud", found.cloud)):
        path = out / f"{name}.json"
        check_writable(path)
        save_profile(profile, path)
    _print(met, found)
    print(f"{out / 'device.json'}, {out / 'cloud.json'}")
    print(f"Search with all of it: nas search --device {met.device} --cloud {met.cloud} --measured {measured} ...")


def _print(met: "Met", found: "Refitted") -> None:
    from nas.refit import errors_of

    print(f"What {met.origin} met of what {met.device} and {met.cloud} had predicted:")
    print(f"  {'part':10} {'kinds':>5} {'median error %':>15} {'after the refit':>16}")
    for part, count, before, after in errors_of(met, found):
        print(f"  {part:10} {count:5} {100 * before:15.1f} {100 * after:16.1f}")
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
