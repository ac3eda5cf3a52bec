"""Messages to send."""

from typing import Any

import msgspec

from fairway.core.clock import utc_now
from fairway.core.incident import Event, Finding, Incident, Message, Note, Signal
from fairway.monitoring.wording import likeliest, title

NOW = utc_now()
FINDINGS = (
    Finding(
        kind="drift", field="amount", statistic="psi", value=0.41, effect=0.41, p_value=1e-9, threshold=0.2
    ),
    Finding(kind="drift", field="country", effect=0.2),
    Finding(kind="performance", field="roc_auc", severity="critical", value=0.81, threshold=0.9),
)


def incident(name: str = "3f0c1d2b4a", findings: tuple[Finding, ...] = FINDINGS, **values: Any) -> Incident:
    signals = tuple(Signal(finding=finding, first=NOW, last=NOW, confirmed=True) for finding in findings)
    made = Incident(
        **{
            "id": name,
            "cause": f"payments@{name}",
            "model": "payments",
            "digest": "sha256:" + "a" * 64,
            "version": 3,
            "state": "open",
            "severity": "critical",
            "opened": NOW,
            "updated": NOW,
            "looked": NOW,
            "announced": True,
            "signals": signals,
            **values,
        }
    )
    return msgspec.structs.replace(made, title=title(made), causes=likeliest(signals))


def event(kind: Any = "opened", name: str = "3f0c1d2b4a", **values: Any) -> Event:
    details: dict[str, Any] = {"notify": True, "sequence": 7, **values}
    if "incident" not in details:
        resolved = {"state": "resolved", "resolved": Note(who="", when=NOW, why="it stayed as it should be")}
        details["incident"] = incident(name, **(resolved if kind == "resolved" else {}))
    return Event(kind=kind, when=NOW, **details)


def message(kind: Any = "opened", name: str = "3f0c1d2b4a", channel: str = "ops", **values: Any) -> Message:
    made = event(kind, name, **values)
    return Message(id=f"{name}.{made.sequence}.{channel}", channel=channel, event=made, created=NOW, due=NOW)
