"""Open Inference Protocol V2 over HTTP: the paths. The bodies are in `v2.py`.

Source: kserve/open-inference-protocol, specification/protocol/inference_rest.md.
"""

from __future__ import annotations

from fairway.core.columns import Outputs
from fairway.core.contract import Contract
from fairway.core.release import VERSION
from fairway.inference.live import LiveVersion
from fairway.serving import v2, v2_extensions
from fairway.serving.entrance import (
    JSON,
    Call,
    Entry,
    Headers,
    Heading,
    Reading,
    Reply,
    Service,
    Target,
    Written,
    json_reply,
    words,
)
from fairway.serving.formats import JSON as JSON_FORM
from fairway.serving.formats import content_type, write_outputs
from fairway.serving.v2_answer import plan
from fairway.serving.v2_extensions import EXTENSIONS
from fairway.serving.v2_request import read_request

_RAW = b"application/octet-stream"


class V2Codec:
    """V2's JSON and raw tensors, and rows in the other forms that the infer path takes."""

    protocol = "rest"

    def read(
        self, target: Target, heading: Heading, body: bytes, headers: Headers, contract: Contract
    ) -> Reading:
        return Reading(*read_request(heading, contract, body, headers))

    def write(self, reading: Reading, outputs: Outputs, live: LiveVersion) -> Written:
        request, form = reading.request, reading.notes
        contract = live.contract
        if form.kind != JSON_FORM:
            body = write_outputs(form.kind, outputs, contract, request.wanted)
            return Written(body, content_type(form.kind))
        way = plan(contract, live.digest, request.model, live.version, request.wanted, form)
        body, json_bytes = way.write(outputs, form.id)
        if json_bytes is None:
            return Written(body)
        return Written(body, _RAW, ((b"inference-header-content-length", b"%d" % json_bytes),))

    def word(self, error: Exception, request_id: str, *, safe: bool) -> tuple[int, Written]:
        return words(error, request_id, safe=safe)


async def server(service: Service, call: Call) -> Reply:
    return json_reply({"name": "fairway", "version": VERSION, "extensions": EXTENSIONS})


async def live(service: Service, call: Call) -> Reply:
    return json_reply({"live": True})


async def ready(service: Service, call: Call) -> Reply:
    """Probes have no key: without one they learn whether, a key which of its models, and why not."""
    health = service.health()
    if service.access.required and not call.caller:
        health = health.of_models(()).without_reasons()
    elif (reach := service.access.models_of(call.caller)) is not None:
        health = health.of_models(reach)
    return json_reply(health, 200 if service.ready else 503)


async def metadata(service: Service, call: Call) -> Reply:
    name, version = call.names["model"], call.names.get("version")
    model = service.plane.table[name]
    if version is not None and model.needs_loading(version):
        model = await service.in_thread(model.load, version)
    chosen = model.primary if version is None else model.pick(version, "")
    versions = [str(number) for number in model.numbers]
    body = v2.metadata(name, versions, f"fairway_{chosen.bundle.spec.kind}", chosen.contract)
    told = [
        (b"fairway-version", f"{chosen.model}:{chosen.version}".encode()),
        (b"fairway-digest", chosen.digest.encode()),
    ]
    return Reply(200, body, [(b"content-type", JSON), *told])


async def model_ready(service: Service, call: Call) -> Reply:
    name, version = call.names["model"], call.names.get("version")
    model = service.plane.table[name]
    if version is not None and not model.has(version):
        model.pick(version, "")
    return json_reply({"name": name, "ready": service.ready}, 200 if service.ready else 503)


_CODEC = V2Codec()
ENTRIES = (
    *v2_extensions.ENTRIES,
    Entry("POST", "/v2/models/{model}/infer", "infer", codec=_CODEC),
    Entry("POST", "/v2/models/{model}/versions/{version}/infer", "infer", codec=_CODEC),
    Entry("GET", "/v2", "open", handler=server),
    Entry("GET", "/v2/health/live", "open", handler=live),
    Entry("GET", "/v2/health/ready", "open", handler=ready),
    Entry("GET", "/v2/models/{model}", "infer", handler=metadata),
    Entry("GET", "/v2/models/{model}/versions/{version}", "infer", handler=metadata),
    Entry("GET", "/v2/models/{model}/ready", "infer", handler=model_ready),
    Entry("GET", "/v2/models/{model}/versions/{version}/ready", "infer", handler=model_ready),
)
