"""`fairway alerts channels|test|queue|retry|deliver|secret`."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from fairway.app.alerts import HomeAlerts, open_alerts
from fairway.app.home import current_user
from fairway.cli.options import HomeOption, JsonOption
from fairway.cli.output import print_json, print_line, print_table
from fairway.core.errors import ChannelNotFound
from fairway.core.incident import Message
from fairway.monitoring.channels.opening import channel_settings
from fairway.monitoring.notices import headline
from fairway.security.webhooks import new_secret

app = typer.Typer(add_completion=False, help="Where incidents are told, and what still waits to be.")


@app.command(epilog="Example:  fairway alerts channels")
def channels(home: HomeOption = None, json: JsonOption = False) -> None:
    """List the channels, what each is told, and what waits for it."""
    with open_alerts(home) as place:
        settings = channel_settings(place.settings)
        queues = place.alerts.queues()
    rows: list[dict[str, Any]] = [
        {
            "name": name,
            "kind": settings[name].kind if name in settings else "not set up",
            "minimum": settings[name].minimum if name in settings else "",
            "models": list(settings[name].models) if name in settings else [],
            "waiting": queue.waiting,
            "dead": queue.dead,
            "oldest": queue.oldest,
        }
        for name, queue in queues.items()
    ]
    if json:
        print_json(rows)
        return
    print_table(
        ("channel", "kind", "from", "models", "waiting", "given up"),
        [
            (row["name"], row["kind"], row["minimum"], ", ".join(row["models"]), row["waiting"], row["dead"])
            for row in rows
        ],
    )


@app.command(name="test", epilog="Example:  fairway alerts test ops")
def try_channel(
    channel: Annotated[str, typer.Argument(metavar="CHANNEL", help="Its name in fairway.toml.")],
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Send one message to a channel now, and say what its receiver answered."""
    with open_alerts(home) as place:
        message = place.alerts.test(channel, who=current_user())
        begun = time.perf_counter()
        answer = place.channels[channel].send(message)
        seconds = time.perf_counter() - begun
    if json:
        print_json({"channel": channel, "id": message.id, "answer": answer, "seconds": seconds})
    else:
        print_line(f"{channel} took it in {seconds:.2f} s: {answer}")


@app.command(epilog="Example:  fairway alerts queue --dead")
def queue(
    channel: Annotated[
        str | None, typer.Option("--channel", metavar="CHANNEL", help="Of one channel.")
    ] = None,
    dead: Annotated[bool, typer.Option("--dead", help="Those that were given up.")] = False,
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="Oldest to show.")] = 100,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """List the messages that wait to be sent, or that could not be, and why."""
    with open_alerts(home) as place:
        found = place.alerts.messages(channel=channel, dead=dead, limit=limit)
    if json:
        print_json(found)
        return
    if not found:
        print_line("No messages were given up." if dead else "No messages wait.")
        return
    print_table(
        ("message", "written", "attempts", "next", "what", "failure"),
        [
            (
                m.id,
                m.created[:19] + "Z",
                m.attempts,
                "" if dead else m.due[:19] + "Z",
                headline(m.event),
                m.failure,
            )
            for m in found
        ],
    )


@app.command(epilog="Example:  fairway alerts retry --all")
def retry(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="MESSAGE...", help="As `queue --dead` lists them.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All that were given up.")] = False,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Send messages again that were given up, such as after an address was mended."""
    if bool(names) == everything:
        raise typer.BadParameter("name messages, or --all")
    with open_alerts(home) as place:
        chosen = names or [message.id for message in place.alerts.messages(dead=True, limit=10_000)]
        found = place.alerts.retry(chosen)
    if json:
        print_json(found)
    else:
        print_line(f"{len(found)} messages wait again")


@app.command(epilog="Example:  fairway alerts deliver")
def deliver(
    channel: Annotated[
        str | None, typer.Option("--channel", metavar="CHANNEL", help="Only to this one.")
    ] = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Send now what is due, once. The control process does so by itself; this is for a cron job or a script.

    Ends with 1 when messages of these channels still wait.
    """
    with open_alerts(home) as place:
        names = _named(place, channel)
        sender = place.sender()
        sent = {name: sender.deliver(name) for name in names}
        queues = place.alerts.queues()
        failures = {name: _last_failure(place, name) for name in names if queues[name].waiting}
    if json:
        waiting = {name: queues[name].waiting for name in names}
        print_json({"sent": sent, "waiting": waiting, "failures": failures})
    else:
        for name in names:
            more = f", {queues[name].waiting} wait: {failures[name]}" if queues[name].waiting else ""
            print_line(f"{name}: {sent[name]} sent{more}")
    if failures:
        raise typer.Exit(1)


@app.command(epilog="Example:  fairway alerts secret > webhook.secret")
def secret() -> None:
    """Make a secret to sign webhooks with, for the receiver and for `secret = "file:..."`. It is kept nowhere."""
    print_line(new_secret())


def _named(place: HomeAlerts, channel: str | None) -> list[str]:
    if channel is None:
        return list(place.channels)
    if channel not in place.channels:
        known = ", ".join(place.channels)
        raise ChannelNotFound(f"There is no channel {channel!r}; there are: {known}.")
    return [channel]


def _last_failure(place: HomeAlerts, channel: str) -> str:
    waiting: tuple[Message, ...] = place.alerts.messages(channel=channel, limit=1)
    return waiting[0].failure if waiting else ""
