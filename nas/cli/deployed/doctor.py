"""`nas doctor`: what a device or a server lacks, and what to do about it."""

from pathlib import Path
from typing import Annotated

import typer


def doctor(
    bundle: Annotated[Path | None, typer.Argument(help="A bundle that shall run here, or be served from here")] = None,
    server: Annotated[
        str | None, typer.Option(help="A server to reach: grpc://, grpcs://, http:// or https://host:port")
    ] = None,
    token_file: Annotated[Path | None, typer.Option(help="File with the token that the server asks for")] = None,
    ca: Annotated[Path | None, typer.Option(help="PEM file of who signed the server's certificate")] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="PEM file of this device's own certificate")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM file of its key")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON list of findings")] = False,
) -> None:
    """Look at Python, packages, processor, memory, clock, a bundle and a server. Status 1 where something fails."""
    import json
    from dataclasses import asdict

    from runtime.diagnosis import FAIL, OK, Visit, diagnose
    from runtime.wire.protocol.token import read_token

    token = None if token_file is None else read_token(token_file)
    findings = diagnose(Visit(bundle=bundle, server=server, token=token, ca=ca, certificate=tls_cert, key=tls_key))
    if as_json:
        print(json.dumps([asdict(one) for one in findings], indent=2))
    else:
        width = max(len(one.what) for one in findings)
        for one in findings:
            print(f"{one.state:4}  {one.what:{width}}  {one.says}")
            if one.state != OK and one.do:
                print(f"      {'':{width}}  -> {one.do}")
    if any(one.state == FAIL for one in findings):
        raise typer.Exit(1)
