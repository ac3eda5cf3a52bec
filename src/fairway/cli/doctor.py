"""`fairway doctor`: what is wrong with this machine, and the command that mends it."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import typer
from rich.console import Console
from rich.text import Text

from fairway.app.environments import needed
from fairway.app.home import Home
from fairway.app.settings import home_folder, read_settings
from fairway.cli.options import HomeOption, JsonOption
from fairway.cli.output import print_json
from fairway.core.errors import FairwayError, SettingsError
from fairway.core.settings import Settings
from fairway.doctor.facts import look
from fairway.doctor.findings import Finding, Status, diagnose, healthy
from fairway.runtimes.isolated.environments import Environments

_MARKS = {
    Status.ok: ("ok     ", "green"),
    Status.note: ("note   ", "dim"),
    Status.warning: ("warning", "yellow"),
    Status.problem: ("problem", "bold red"),
}


app = typer.Typer(add_completion=False)


@app.command(epilog="Example:  fairway doctor --home ./models")
def run(home: HomeOption = None, json: JsonOption = False) -> None:
    """Look for what will not work on this machine, and name the command that mends it.

    Ends with 1 when something a user asks for would fail; notes and warnings end with 0.
    """
    findings = examine(home)
    if json:
        print_json({"healthy": healthy(findings), "findings": findings})
    else:
        show(findings, Console())
    if not healthy(findings):
        raise typer.Exit(1)


def examine(home: str | None) -> tuple[Finding, ...]:
    """Looks and judges. Settings that cannot be read are a finding, and the defaults are looked at instead."""
    settings_error = None
    try:
        settings = read_settings(home)
    except SettingsError as error:
        settings_error = str(error)
        settings = msgspec.structs.replace(Settings(), home=str(home_folder(home)))
    place = Home(settings)
    with place:
        facts = look(
            Path(settings.home),
            host=settings.serving.host,
            ports={"--port": settings.serving.port, "--grpc-port": settings.serving.listening_grpc_port},
            registry=_registry_name(settings),
            open_registry=lambda: place.registry.models(),  # noqa: PLW0108 - the registry is opened inside
            settings_error=settings_error,
            environments=lambda: _environments(place),
            certificates=[path for path in (settings.tls.certificate, settings.tls.client_ca) if path],
        )
    return diagnose(facts)


def _environments(place: Home) -> dict[str, str]:
    """What is wrong with each environment that a served model runs in."""
    try:
        needs = needed(place.registry.snapshot())
    except FairwayError as error:
        return {"the environments of models": str(error)}
    environments = Environments(place.settings.isolation_at_home()) if needs else None
    return {
        f"the environment {need.lock.digest[:12]} of {', '.join(need.models)}": environments.complaint(
            need.lock.digest
        )
        for need in needs
        if environments is not None
    }


def _registry_name(settings: Settings) -> str:
    """Where the registry is, without the password that a database URL may hold."""
    url = urlsplit(settings.registry.database_url)
    return f"{url.scheme} at {url.hostname or url.path}" if url.scheme else f"{settings.home}/registry.db"


def show(findings: tuple[Finding, ...], console: Console) -> None:
    """One line a finding, and below it the command that mends it."""
    for finding in findings:
        mark, style = _MARKS[finding.status]
        console.print(Text(mark, style), Text(finding.message), soft_wrap=True)
        if finding.fix:
            console.print(Text(f"        {finding.fix}", "cyan"), soft_wrap=True)
    wrong = sum(finding.status is Status.problem for finding in findings)
    console.print("nothing is in the way" if not wrong else f"{wrong} to mend")
