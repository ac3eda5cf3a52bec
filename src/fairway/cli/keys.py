"""`fairway keys create|list|revoke|history`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from fairway.app.home import open_home
from fairway.app.keys import create_key, revoke_key
from fairway.cli.options import HomeOption, JsonOption, WhyOption
from fairway.cli.output import print_json, print_line, print_table
from fairway.core.clock import utc_now
from fairway.registry.keys import described
from fairway.security.keys import SCOPES, AccessKey

app = typer.Typer(add_completion=False, help="Make, list and revoke API keys.")

NameArgument = Annotated[
    str, typer.Argument(metavar="NAME", help="What the key is called in logs and history.")
]


@app.command(
    epilog="Example:  fairway keys create web-shop --scope infer --model payments --expires 90d --rate 100"
)
def create(
    name: NameArgument,
    scopes: Annotated[
        list[str] | None,
        typer.Option(
            "--scope", help=f"{', '.join(SCOPES)}; may be repeated. Without it: infer.", metavar="SCOPE"
        ),
    ] = None,
    models: Annotated[
        list[str] | None,
        typer.Option(
            "--model", help="A model it may use; may be repeated. Without it: all.", metavar="MODEL"
        ),
    ] = None,
    expires: Annotated[
        str | None,
        typer.Option("--expires", help="90d, 12h, or a date (UTC). Without it: never.", metavar="WHEN"),
    ] = None,
    rate: Annotated[
        float | None, typer.Option("--rate", help="Most requests per second, over all workers.")
    ] = None,
    burst: Annotated[
        int | None,
        typer.Option(
            "--burst", help="Most at once after a pause. Without it: what --rate allows in a second."
        ),
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option("--concurrency", help="Most requests in flight, over all workers.")
    ] = None,
    why: WhyOption = "keys create",
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Make a key. Its secret is printed this once and kept nowhere; only its hash is.

    From the first key on, every request to the servers of this home needs one.
    """
    with open_home(home) as place:
        key, secret = create_key(
            place,
            name,
            scopes=tuple(scopes or ("infer",)),
            models=tuple(models or ()),
            expires=expires,
            rate=rate,
            burst=burst,
            concurrency=concurrency,
            why=why,
        )
    if json:
        print_json({**described(key), "secret": secret})
        return
    print_line(secret)
    sys.stderr.write(
        f"Keep it now: it is not shown again. {key.name}: {_text(key.scopes)} on {_text(key.models) or 'all models'}, "
        f"{'until ' + key.expires[:19] + 'Z' if key.expires else 'until revoked'}.\n"
        "Callers send it as 'Authorization: Bearer fw_...' or as 'X-API-Key: fw_...'.\n"
    )


@app.command(name="list", epilog="Example:  fairway keys list --all")
def list_keys(
    everything: Annotated[bool, typer.Option("--all", help="The revoked ones too.")] = False,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """List the keys: what each may do, until when. Secrets are kept nowhere and cannot be shown."""
    with open_home(home) as place:
        known = place.registry.keys()
    now = utc_now()
    keys = [key for key in known if everything or key.revoked is None]
    if json:
        print_json([{**described(key), "state": _state(key, now)} for key in keys])
        return
    if not known:
        print_line(f"No keys in {place.path}: servers listen on loopback only, and ask for none.")
        return
    print_table(
        ("name", "scopes", "models", "limits", "expires", "state"),
        [
            (
                key.name,
                _text(key.scopes),
                _text(key.models) or "all",
                _limits(key),
                key.expires[:10] if key.expires else "never",
                _state(key, now),
            )
            for key in keys
        ],
    )


@app.command(epilog='Example:  fairway keys revoke web-shop --why "leaked in a log"')
def revoke(
    name: NameArgument, why: WhyOption = "keys revoke", home: HomeOption = None, json: JsonOption = False
) -> None:
    """Revoke a key: running servers refuse it within a second. For good; make a new one instead."""
    with open_home(home) as place:
        key = revoke_key(place, name, why=why)
        keys = place.registry.keys()
    left = [other for other in keys if _state(other, utc_now()) == "active"]
    if json:
        print_json({**described(key), "state": "revoked"})
        return
    print_line(f"revoked {key.name} ({key.id})")
    if not left:
        sys.stderr.write("No key is left that works: servers refuse every request until there is one.\n")


@app.command(epilog="Example:  fairway keys history --limit 20")
def history(
    limit: Annotated[int, typer.Option("--limit", min=1, help="Newest entries to show.")] = 50,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Who made and revoked which key, when and why; the newest first."""
    with open_home(home) as place:
        changes = place.registry.key_history(limit)
    if json:
        print_json(changes)
        return
    print_table(
        ("when", "who", "what", "key", "why"),
        [
            (
                c.when[:19] + "Z",
                c.who,
                "created" if c.before is None else "revoked",
                c.what.removeprefix("key:"),
                c.why,
            )
            for c in changes
        ],
    )


def _text(names: tuple[str, ...]) -> str:
    return ", ".join(names)


def _limits(key: AccessKey) -> str:
    rate = "" if key.rate is None else f"{key.rate:g}/s, burst {key.burst}"
    concurrency = "" if key.concurrency is None else f"{key.concurrency} in flight"
    return "; ".join(part for part in (rate, concurrency) if part) or "none"


def _state(key: AccessKey, now: str) -> str:
    """`now` is a time as the keys have it, whose text sorts as the times do."""
    if key.revoked is not None:
        return "revoked"
    return "expired" if key.expires is not None and key.expires <= now else "active"
