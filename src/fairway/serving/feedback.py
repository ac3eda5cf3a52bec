"""`POST /feedback`: labels for what was predicted, one or many, as JSON, JSON Lines or CSV.

    {"request_id": "r-1", "label": 1}        ->  200 {"accepted": 1, "rejected": 0, "errors": []}

A label that is answered 200 is on the disk. Rows that are wrong are named; the others are taken.
"""

from __future__ import annotations

import time
from urllib.parse import parse_qs

from fairway.core.errors import InvalidInput, Problem
from fairway.core.label import ANY_MODEL
from fairway.inference.feedback import Resolve, read_labels
from fairway.serving.entrance import Call, Entry, Reply, Service, json_reply
from fairway.serving.formats import kind_of

_SMALL_BYTES = 16 * 1024
"""Bodies up to here are read in the event loop; a million labels are not."""


async def feedback(service: Service, call: Call) -> Reply:
    kind = kind_of(call.headers.get(b"content-type"))
    blocks = read_labels(kind, call.body, resolver(service, call), time.time())
    small = len(call.body) <= _SMALL_BYTES
    taken = await (service.labels.put if small else service.labels.put_many)(blocks, call.caller)
    if taken.rejected and not taken.accepted:
        problems = tuple(Problem(wrong.reason, row=wrong.row) for wrong in taken.wrong)
        raise InvalidInput(f"None of {taken.rejected} labels could be taken.", problems)
    return json_reply(
        {
            "accepted": taken.accepted,
            "rejected": taken.rejected,
            "errors": [] if service.settings.serving.errors == "safe" else taken.wrong,
        }
    )


def resolver(service: Service, call: Call) -> Resolve:
    """The model of a label: the one that it names, or the request does, or the only one there is; else whichever
    predicted that request. A key made for some models reaches no other."""
    query = parse_qs(call.query).get("model", [""])[-1]
    named = query or call.headers.get(b"x-fairway-model", b"").decode("latin-1")
    allowed = service.access.models_of(call.caller)
    table = service.plane.table
    known = [live.route.model for live in table]
    default = known[0] if len(known) == 1 else ANY_MODEL
    if allowed is not None:
        default = next(iter(allowed)) if len(allowed) == 1 else ""
    keys_kept = service.settings.log.key_privacy != "drop"

    def resolve(model: str, key: str) -> str:
        model = model or named or default
        if allowed is not None and model not in allowed:
            raise ValueError(
                f"the API key does not reach the model {model!r}." if model else "it names no model."
            )
        if model != ANY_MODEL and table.find(model) is None:
            raise ValueError(f"no model {model[:128]!r} is served here.")
        if key and not keys_kept:
            raise ValueError("keys are not kept here (log.key_privacy); give the request_id.")
        return model

    return resolve


ENTRIES = (Entry("POST", "/feedback", "feedback", handler=feedback),)
