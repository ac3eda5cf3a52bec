"""What each receiver gets. Slack's and Teams' limits are theirs, published."""

import html
import json
import re
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.core.alert_settings import ChannelSettings
from fairway.core.errors import DeliveryFailed
from fairway.core.incident import Finding, Likely, Message
from fairway.monitoring.channels.alertmanager import AlertmanagerChannel
from fairway.monitoring.channels.log import LogChannel
from fairway.monitoring.channels.slack import SlackChannel, escaped, escaped_to
from fairway.monitoring.channels.teams import TeamsChannel, plain
from fairway.monitoring.channels.webhook import WebhookChannel
from fairway.security.webhooks import new_secret, verify
from tests.receivers import receiving
from tests.unit.monitoring.messages import incident, message

LINK = "https://fairway.example"
KINDS = [
    "opened",
    "reopened",
    "raised",
    "updated",
    "reminded",
    "acknowledged",
    "unsilenced",
    "resolved",
    "test",
]
HUGE = tuple(
    Finding(
        kind="drift",
        field="<!channel> [x](http://evil) " + "ü" * 270,
        text="é" * 2000,
        effect=1.0,
        slice=f"s{i}",
    )
    for i in range(200)
)


def settings(kind: Any, **values: Any) -> ChannelSettings:
    return ChannelSettings(kind=kind, **{"url": "http://localhost/x", **values})


def huge() -> Message:
    made = incident(findings=HUGE)
    return message(incident=msgspec.structs.replace(made, causes=made.causes * 3))


# Slack


@pytest.mark.parametrize("kind", KINDS)
def test_slack_gets_blocks(kind: str) -> None:
    body = SlackChannel(settings("slack"), {}, address=LINK).payload(message(kind))
    assert next(block["type"] for block in body["blocks"]) == "header"
    assert "payments:3: drift in amount, country; performance (ROC AUC)" in body["text"]
    _fits_slack(body)


def test_slack_says_what_a_person_needs() -> None:
    body = SlackChannel(settings("slack"), {}, address=LINK).payload(message())
    header, causes, fields, context = body["blocks"]
    assert header["text"]["text"].endswith(
        "[critical] payments:3: drift in amount, country; performance (ROC AUC)"
    )
    assert causes["text"]["text"].splitlines()[0].startswith("• drift of amount: psi 0.41 (threshold 0.2)")
    assert "Model: payments:3" in [field["text"] for field in fields["fields"]]
    assert context["elements"][0]["text"] == f"<{LINK}/incidents/3f0c1d2b4a|Open the incident>"


def test_slack_takes_the_largest() -> None:
    body = SlackChannel(settings("slack"), {}, address=LINK).payload(huge())
    _fits_slack(body)
    assert "<!channel>" not in json.dumps(body)
    assert escaped("<!channel> & <http://x|y>") == "&lt;!channel&gt; &amp; &lt;http://x|y&gt;"


MARKUP = [
    "<!channel>",
    "*a* _b_ ~c~ `d` :fire:",
    "[x](http://evil)",
    "- item",
    "{{DATE(2026-01-01T00:00:00Z)}}",
]


@pytest.mark.parametrize("name", MARKUP)
def test_names_are_shown_as_they_are(name: str) -> None:
    """Where a receiver reads no markup at all. Only what we write ourselves, the link, is mrkdwn."""
    finding = Finding(kind="drift", field=name, text=f"drift of {name}")
    told = message(incident=incident(findings=(finding,), model=name))
    header, causes, fields, context = SlackChannel(settings("slack"), {}, address=LINK).payload(told)[
        "blocks"
    ]
    for text in (header["text"], causes["text"], *fields["fields"]):
        assert (text["type"], text["emoji"]) == ("plain_text", False)
    assert html.unescape(causes["text"]["text"]) == f"• drift of {name}"
    assert name not in context["elements"][0]["text"]
    (attachment,) = TeamsChannel(settings("teams"), {}, address=LINK).payload(told)["attachments"]
    title, cause, known = attachment["content"]["body"]
    assert (title["type"], cause["type"], known["type"]) == ("RichTextBlock", "RichTextBlock", "FactSet")
    [run] = cause["inlines"]
    assert run["text"].replace("\N{ZERO WIDTH SPACE}", "") == f"drift of {name}"
    assert "{{" not in run["text"]
    assert known["facts"][0]["value"] == plain(f"{name}:3")


@given(st.text(max_size=400), st.integers(1, 300))
def test_an_escape_is_never_cut_in_two(text: str, most: int) -> None:
    cut = escaped_to(text, most)
    assert len(cut) <= most
    assert not re.search(r"&(?!amp;|lt;|gt;)", cut)


def _fits_slack(body: dict[str, Any]) -> None:
    assert set(body) == {"text", "mrkdwn", "unfurl_links", "blocks"}
    assert 0 < len(body["blocks"]) <= 50
    for block in body["blocks"]:
        if block["type"] == "header":
            assert block["text"]["type"] == "plain_text"
            assert 0 < len(block["text"]["text"]) <= 150
        elif block["type"] == "section":
            texts = [block["text"]] if "text" in block else block["fields"]
            assert len(texts) <= 10
            assert all(
                t["type"] == "plain_text" and 0 < len(t["text"]) <= (3000 if "text" in block else 2000)
                for t in texts
            )
        else:
            assert block["type"] == "context"
            assert len(block["elements"]) <= 10


# Teams


@pytest.mark.parametrize("kind", KINDS)
def test_teams_gets_an_adaptive_card(kind: str) -> None:
    body = TeamsChannel(settings("teams"), {}, address=LINK).payload(message(kind))
    assert body["type"] == "message"
    (attachment,) = body["attachments"]
    assert attachment["contentType"] == "application/vnd.microsoft.card.adaptive"
    card = attachment["content"]
    assert (card["type"], card["version"]) == ("AdaptiveCard", "1.4")
    assert next(part["type"] for part in card["body"]) == "RichTextBlock"
    assert card["body"][-1]["type"] == "FactSet"
    assert card["actions"] == [
        {"type": "Action.OpenUrl", "title": "Open the incident", "url": f"{LINK}/incidents/3f0c1d2b4a"}
    ]


def test_teams_takes_the_largest() -> None:
    body = TeamsChannel(settings("teams"), {}, address=LINK).payload(huge())
    assert len(msgspec.json.encode(body)) < 28 * 1024
    assert plain("a_b*c*[x](y) &amp;") == r"a\_b\*c\*\[x\]\(y\) \&amp;"


# Alertmanager


def test_alertmanager_keeps_one_alert_per_incident() -> None:
    channel = AlertmanagerChannel(settings("alertmanager", labels={"team": "ml"}), {}, address=LINK)
    (opened,) = channel.payload(message())
    assert opened["labels"] == {
        "alertname": "FairwayIncident",
        "model": "payments",
        "version": "3",
        "severity": "critical",
        "incident": "3f0c1d2b4a",
        "team": "ml",
    }
    assert opened["generatorURL"] == f"{LINK}/incidents/3f0c1d2b4a"
    assert opened["startsAt"] < opened["endsAt"]
    raised, *lower = channel.payload(message("raised"))
    assert raised["labels"] == opened["labels"]
    assert [alert["labels"]["severity"] for alert in lower] == ["info", "warning"]
    assert all(alert["endsAt"] <= raised["endsAt"] for alert in lower)
    assert len({alert["endsAt"] for alert in channel.payload(message("resolved"))}) == 1


# Webhook and log


def test_a_webhook_is_signed_and_carries_the_event() -> None:
    secret = new_secret()
    made = settings("webhook", url="env:URL", secret="env:KEY", headers={"Authorization": "env:TOKEN"})
    with receiving() as receiver:
        environ = {"URL": receiver.url, "KEY": secret, "TOKEN": "Bearer t0ken"}
        channel = WebhookChannel(made, environ, address="")
        assert channel.send(message()) == "200 ok"
        assert channel.send(message()) == "200 ok"
    assert [
        verify(secret, headers, body) for headers, body in zip(receiver.headers, receiver.bodies, strict=True)
    ] == ["3f0c1d2b4a.7.ops"] * 2
    body = receiver.messages[0]
    assert body["type"] == "incident.opened"
    assert body["data"]["incident"]["causes"][0]["field"] == "amount"
    assert receiver.headers[0]["authorization"] == "Bearer t0ken"
    assert "t0ken" not in repr(vars(channel))
    assert secret not in repr(vars(channel))


@pytest.mark.parametrize(
    "environ", [{}, {"URL": " "}, {"URL": "file:///etc/passwd"}, {"URL": "http://h/\nx"}]
)
def test_a_secret_that_is_not_there_waits_for_somebody_to_set_it(environ: dict[str, str]) -> None:
    channel = SlackChannel(settings("slack", url="env:URL"), environ, address="")
    with pytest.raises(DeliveryFailed) as error:
        channel.send(message())
    assert error.value.permanent is False
    assert "passwd" not in str(error.value)


def test_the_log_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    made = message(incident=msgspec.structs.replace(incident(), causes=(Likely(kind="drift", text="a"),)))
    assert LogChannel(settings("log"), {}, address="").send(made) == "logged"
    (record,) = caplog.records
    assert record.levelname == "ERROR"
    assert record.getMessage().endswith("performance (ROC AUC) - a (incident 3f0c1d2b4a)")
