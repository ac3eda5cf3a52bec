"""`fairway incidents list|show|ack|resolve|silence|silences|unsilence|report|events`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from fairway.app.alerts import open_alerts
from fairway.app.home import current_user
from fairway.cli.options import HomeOption, JsonOption
from fairway.cli.output import print_json, print_line, print_table
from fairway.core.clock import utc_now
from fairway.core.errors import MalformedInput
from fairway.core.incident import Event, Incident
from fairway.monitoring.alerts import described, until_text
from fairway.monitoring.windows import MOST_BYTES, read_windows
from fairway.monitoring.wording import advice, harm, sentence, subject
from fairway.stores.alerts import IncidentState

app = typer.Typer(add_completion=False, help="What is wrong with the models, and what is done about it.")

IncidentArgument = Annotated[str, typer.Argument(metavar="INCIDENT", help="Its id, as `list` shows it.")]
WhyOption = Annotated[str, typer.Option("--why", help="The reason, for the others.")]


@app.command(name="list", epilog="Example:  fairway incidents list --model payments --all")
def list_incidents(
    model: Annotated[str | None, typer.Option("--model", metavar="MODEL", help="Of one model.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Also those that are over.")] = False,
    check: Annotated[bool, typer.Option("--check", help="End with 1 when an incident is open.")] = False,
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="Newest to show.")] = 50,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """List the incidents that are open: one for everything that is wrong with one version of a model."""
    with open_alerts(home) as place:
        states: tuple[IncidentState, ...] = ("open", "resolved") if everything else ("open",)
        found = place.alerts.incidents(states=states, model=model, limit=limit)
    if json:
        print_json([described(incident) for incident in found])
    elif not found:
        print_line("No incidents." if everything else "No open incidents.")
    else:
        print_table(
            ("incident", "severity", "state", "since", "what"),
            [
                (incident.id, incident.severity, _state(incident), f"{incident.opened[:16]}Z", incident.title)
                for incident in found
            ],
        )
    if check and any(incident.state == "open" for incident in found):
        raise typer.Exit(1)


@app.command(epilog="Example:  fairway incidents show 3f0c1d2b4a")
def show(name: IncidentArgument, home: HomeOption = None, json: JsonOption = False) -> None:
    """Show an incident: its likeliest causes, every finding, its history."""
    with open_alerts(home) as place:
        incident = place.alerts.incident(name)
    if json:
        print_json(described(incident))
        return
    print_line(f"{incident.id}  {incident.title}")
    print_line(f"  {incident.severity}, {_state(incident)}, since {incident.opened[:19]}Z")
    print_line(f"  {subject(incident.model, incident.version)}  {incident.digest[:19]}")
    if incident.causes:
        print_line("\nLikeliest causes")
        for number, cause in enumerate(incident.causes, 1):
            print_line(f"  {number}. {cause.text}")
    if bad := harm(incident):
        print_line(f"\nHow bad it is\n  {bad}")
    if incident.state == "open" and (steps := advice(incident)):
        print_line("\nWhat to do")
        for number, text in enumerate(steps, 1):
            print_line(f"  {number}. {text}")
    if incident.signals:
        print_line()
        print_table(
            ("finding", "severity", "seen in", "last"),
            [
                (
                    sentence(signal.finding),
                    signal.finding.severity,
                    _windows(signal.times) + (f", then {signal.clean} without" if signal.clean else ""),
                    signal.last[:16] + "Z",
                )
                for signal in incident.signals
            ],
        )
    print_line()
    print_table(
        ("when", "what", "who", "said"),
        [(entry.when[:19] + "Z", entry.what, entry.who, entry.text) for entry in incident.history],
    )


@app.command(epilog='Example:  fairway incidents ack 3f0c1d2b4a --why "looking into it"')
def ack(
    name: IncidentArgument, why: WhyOption = "", home: HomeOption = None, json: JsonOption = False
) -> None:
    """Say that you take it on: no reminders, until it gets worse."""
    with open_alerts(home) as place:
        incident = place.alerts.acknowledge(name, who=current_user(), why=why)
    _say(incident, "acknowledged", json)


@app.command(epilog='Example:  fairway incidents resolve 3f0c1d2b4a --why "price list was renewed"')
def resolve(
    name: IncidentArgument, why: WhyOption = "", home: HomeOption = None, json: JsonOption = False
) -> None:
    """Say that it is over. If it is not, the next window opens it again."""
    with open_alerts(home) as place:
        incident = place.alerts.resolve(name, who=current_user(), why=why)
    _say(incident, "resolved", json)


@app.command(
    epilog="Example:  fairway incidents silence --model payments --field amount --for 7d --why 'sale week'"
)
def silence(
    name: Annotated[
        str, typer.Argument(metavar="[INCIDENT]", help="One incident; else what the options match.")
    ] = "",
    until: Annotated[
        str, typer.Option("--for", "--until", metavar="WHEN", help="90m, 12h, 7d, or a date (UTC).")
    ] = "24h",
    model: Annotated[str, typer.Option("--model", metavar="PATTERN", help="Models, such as 'pay*'.")] = "",
    kind: Annotated[
        str, typer.Option("--kind", metavar="PATTERN", help="drift, quality, performance ...")
    ] = "",
    field: Annotated[str, typer.Option("--field", metavar="PATTERN", help="Columns or metrics.")] = "",
    slice_: Annotated[
        str, typer.Option("--slice", metavar="PATTERN", help="Groups, such as 'country=*'.")
    ] = "",
    why: WhyOption = "",
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Tell nobody for a while: of one incident, or of everything that all the patterns match.

    It is still seen and kept. What is open when the silence ends is told then.
    """
    with open_alerts(home) as place:
        made = place.alerts.silence(
            until_text(until, utc_now()),
            who=current_user(),
            why=why,
            incident=name,
            model=model,
            kind=kind,
            field=field,
            slice=slice_,
        )
    if json:
        print_json(made)
    else:
        print_line(f"silence {made.id} until {made.until[:19]}Z")


@app.command(epilog="Example:  fairway incidents silences")
def silences(home: HomeOption = None, json: JsonOption = False) -> None:
    """List the silences that have not ended."""
    with open_alerts(home) as place:
        found = place.alerts.silences()
    if json:
        print_json(found)
        return
    if not found:
        print_line("No silences.")
        return
    parts = ("incident", "model", "kind", "field", "slice")
    print_table(
        ("silence", "until", "matches", "who", "why"),
        [
            (
                one.id,
                one.until[:16] + "Z",
                " ".join(f"{part}={getattr(one, part)}" for part in parts if getattr(one, part)),
                one.who,
                one.why,
            )
            for one in found
        ],
    )


@app.command(epilog="Example:  fairway incidents unsilence 1f2e3d4c")
def unsilence(
    name: Annotated[str, typer.Argument(metavar="SILENCE", help="Its id, as `silences` shows it.")],
    home: HomeOption = None,
) -> None:
    """End a silence. What it hid and is still open is told."""
    with open_alerts(home) as place:
        place.alerts.end_silence(name)
    print_line(f"silence {name} is over")


@app.command(epilog="Example:  my-check --json | fairway incidents report -")
def report(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE", help="JSON: one window, an array, or one a line; - reads standard input."
        ),
    ],
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Hand in what a check of your own looked at and found. A window in which nothing was found counts as clean."""
    windows = read_windows(_content(file))
    with open_alerts(home) as place:
        events = place.alerts.observe(windows)
    if json:
        print_json(events)
        return
    for event in events:
        print_line(f"{event.kind}  {event.incident.id}  {event.incident.title}")
    if not events:
        print_line("Nothing changed.")


@app.command(epilog="Example:  fairway incidents events --after 120 --json")
def events(
    after: Annotated[int, typer.Option("--after", min=0, metavar="SEQUENCE", help="Those behind it.")] = 0,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="Most to show.")] = 100,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Every change of every incident, the oldest first: what rollouts and retraining listen to."""
    with open_alerts(home) as place:
        found, cursor = place.alerts.events_since(after, limit)
    if json:
        print_json({"events": found, "cursor": cursor})
        return
    print_table(("sequence", "when", "what", "incident", "title"), [_row(event) for event in found])


def _row(event: Event) -> tuple[object, ...]:
    return (event.sequence, event.when[:19] + "Z", event.kind, event.incident.id, event.incident.title)


def _content(file: str) -> bytes:
    if file == "-":
        return sys.stdin.buffer.read(MOST_BYTES + 1)
    try:
        with Path(file).open("rb") as opened:
            return opened.read(MOST_BYTES + 1)
    except OSError as error:
        raise MalformedInput(f"{file} cannot be read: {error.strerror}.") from error


def _windows(count: int) -> str:
    return "1 window" if count == 1 else f"{count} windows"


def _state(incident: Incident) -> str:
    notes = [
        name
        for name, is_so in (("acknowledged", incident.acknowledged), ("silenced", incident.muted))
        if is_so
    ]
    return ", ".join([incident.state, *notes])


def _say(incident: Incident, what: str, as_json: bool) -> None:
    if as_json:
        print_json(described(incident))
    else:
        print_line(f"{what} {incident.id}  {incident.title}")
