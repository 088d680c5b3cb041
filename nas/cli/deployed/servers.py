"""`nas servers`: the members of a placement, what each holds, its load and its round trip."""

import json
from pathlib import Path
from typing import Annotated

import typer


def servers(
    placement: Annotated[Path, typer.Argument(metavar="PLACEMENT.json", help="A placement file")],
    token_file: Annotated[Path | None, typer.Option(help="File with the token that the members ask for")] = None,
    ca: Annotated[Path | None, typer.Option(help="PEM file of those who may sign the members' certificates")] = None,
    cert: Annotated[Path | None, typer.Option(help="PEM file with our certificate, for members that ask")] = None,
    key: Annotated[Path | None, typer.Option(help="PEM file with its key")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON")] = False,
) -> None:
    """Show who holds what, who is there, load and round trips; status 1 if a stage has nobody."""
    from runtime.chain.neighbours import Identity
    from runtime.chain.overview import overview
    from runtime.chain.placement_file import DEVICE, read_placement
    from runtime.wire.protocol.token import read_token

    plan = read_placement(placement)
    who = Identity(token=None if token_file is None else read_token(token_file), ca=ca, certificate=cert, key=key)
    rows = overview(plan, who)
    if as_json:
        print(json.dumps({"placement": plan.id, "members": rows}))
    else:
        for row in rows:
            held = ", ".join(map(str, row["stages"])) or "none"
            trip = "not there" if row["rtt_ms"] is None else f"{row['rtt_ms']:.1f} ms"
            load = "" if row["queue_ms"] is None else f", queue {row['queue_ms']:.1f} ms"
            load += "" if row["waiting"] is None else f", {row['waiting']:.0f} waiting"
            print(f"{row['name']}  {row['address']}  {trip}, holds stages {held}{load}")
    covered = {stage for row in rows for stage in row["stages"]}
    lonely = [i for i, stage in enumerate(plan.stages) if stage.members != (DEVICE,) and i not in covered]
    if lonely:
        print(f"nobody holds stage {', '.join(map(str, lonely))}", flush=True)
        raise typer.Exit(1)
