"""`fairway control`."""

from __future__ import annotations

import sys
from typing import Annotated

import msgspec
import typer

from fairway.app.control import run_control
from fairway.app.settings import read_settings
from fairway.cli.options import HomeOption, JsonOption
from fairway.core.priority import give_way
from fairway.serving.logs import set_up_logging

app = typer.Typer(add_completion=False)


@app.command(epilog="Example:  fairway control --port 8090")
def run(
    host: Annotated[
        str | None, typer.Option("--host", help="Address to listen on.  [default: 127.0.0.1]")
    ] = None,
    port: Annotated[
        int | None, typer.Option("--port", help="Port; 0 takes a free one.  [default: 8090]")
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Listen beyond loopback without authentication.")
    ] = False,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Run schedules, pages and the admin API until Ctrl-C. `fairway serve` starts one by itself.

    Of several on one registry one leads; another takes over within seconds when it ends.
    """
    settings = read_settings(home)
    set_up_logging(settings.telemetry, "control")
    given = {"host": host, "port": port}
    control = msgspec.structs.replace(settings.control, **{k: v for k, v in given.items() if v is not None})
    settings = msgspec.structs.replace(settings, control=control)
    give_way(control.nice)

    def ready(address: str) -> None:
        line = f"ready  {address}  (Ctrl-C stops)"
        if json:
            line = msgspec.json.encode({"ready": True, "address": address}).decode()
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    run_control(settings, insecure=insecure, on_ready=ready)
