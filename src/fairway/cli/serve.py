"""`fairway serve`. Imports little: a server is ready before a database library would be."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import msgspec
import typer

from fairway.app.serve import serving_snapshot
from fairway.app.settings import read_settings
from fairway.cli.options import HomeOption, JsonOption
from fairway.security.tls import open_tls
from fairway.serving.logs import set_up_logging
from fairway.serving.supervisor import Supervisor, check_binding

app = typer.Typer(add_completion=False)
CONTROL = "fairway.app.control"
"""Named, not imported: it needs a database library, and is a process of its own."""


@app.command(epilog="Example:  fairway serve payments --port 8080 --workers 2")
def run(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Models; all routed ones if none.")
    ] = None,
    host: Annotated[
        str | None, typer.Option("--host", help="Address to listen on.  [default: 127.0.0.1]")
    ] = None,
    port: Annotated[
        int | None, typer.Option("--port", help="HTTP port; 0 takes a free one.  [default: 8080]")
    ] = None,
    grpc_port: Annotated[
        int | None, typer.Option("--grpc-port", help="gRPC port; 0 takes a free one.  [default: 8081]")
    ] = None,
    no_grpc: Annotated[bool, typer.Option("--no-grpc", help="Serve HTTP only.")] = False,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, max=512, help="Processes.  [default: 1]")
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Listen beyond loopback without authentication.")
    ] = False,
    certificate: Annotated[
        str | None,
        typer.Option("--tls-cert", help="Certificate chain in PEM: HTTPS, and TLS for gRPC.", metavar="FILE"),
    ] = None,
    key: Annotated[
        str | None, typer.Option("--tls-key", help="The certificate's private key in PEM.", metavar="FILE")
    ] = None,
    client_ca: Annotated[
        str | None,
        typer.Option(
            "--tls-client-ca",
            help="Let in only clients with a certificate of these authorities.",
            metavar="FILE",
        ),
    ] = None,
    no_control: Annotated[
        bool, typer.Option("--no-control", help="Start no control process: no schedules, no pages.")
    ] = False,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Serve models over HTTP and gRPC until Ctrl-C. Prints one line once it answers."""
    settings = read_settings(home)
    set_up_logging(settings.telemetry, "supervisor")
    given = {
        "host": host,
        "port": port,
        "grpc_port": grpc_port,
        "workers": workers,
        "grpc": False if no_grpc else None,
    }
    serving = msgspec.structs.replace(settings.serving, **{k: v for k, v in given.items() if v is not None})
    files = {"certificate": certificate, "key": key, "client_ca": client_ca}
    tls = msgspec.structs.replace(
        settings.tls, **{k: os.path.abspath(v) for k, v in files.items() if v is not None}
    )
    settings = msgspec.structs.replace(settings, serving=serving, tls=tls)
    snapshot = serving_snapshot(settings, tuple(names or ()))
    secure = open_tls(tls) is not None
    check_binding(serving.host, insecure=insecure, keys=bool(snapshot.keys), tls=secure)

    def ready(bound: int, grpc_bound: int | None) -> None:
        shown = f"[{serving.host}]" if ":" in serving.host else serving.host
        address = f"{'https' if secure else 'http'}://{shown}:{bound}"
        models = [model.route.model for model in snapshot.models]
        if json:
            grpc = None if grpc_bound is None else f"{shown}:{grpc_bound}"
            line = msgspec.json.encode(
                {"ready": True, "address": address, "grpc": grpc, "models": models}
            ).decode()
        else:
            grpc = "" if grpc_bound is None else f"gRPC {shown}:{grpc_bound}  "
            paths = ", ".join(f"/v2/models/{model}/infer" for model in models)
            line = f"ready  {address}  {grpc}{paths}  (Ctrl-C stops)"
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    control = CONTROL if settings.control.enabled and not no_control else ""
    Supervisor(settings, snapshot, ready, control=control, quiet=json).run()
