"""SageMaker's contract of inference containers, besides `/invocations`: health, batch transform, many models.

Source: Amazon SageMaker developer guide, your-algorithms-inference-code, your-algorithms-batch-code and
mms-container-apis.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import msgspec

from fairway.core.errors import MalformedInput, ModelNotFound, NotFound, NotSupported
from fairway.core.settings import Settings
from fairway.inference.repository import Repository, State
from fairway.packaging.placed import placed_bundle
from fairway.serving.entrance import Call, Entry, Reply, Service, json_reply
from fairway.serving.invocations import CODEC

MOST_MODELS = 100
"""Models on a page of the list."""
_MOST_PAYLOAD_MB = 100


class LoadBody(msgspec.Struct, frozen=True):
    model_name: str
    url: str


async def ping(service: Service, call: Call) -> Reply:
    return Reply(200 if service.ready else 503, b"", [])


async def execution_parameters(service: Service, call: Call) -> Reply:
    return json_reply(_execution_parameters(service.settings))


def _execution_parameters(settings: Settings) -> dict[str, Any]:
    told = settings.sagemaker
    largest = min(settings.limits.body_bytes // 2**20, _MOST_PAYLOAD_MB)
    return {
        "MaxConcurrentTransforms": told.max_concurrent_transforms or settings.serving.workers,
        "BatchStrategy": told.batch_strategy,
        "MaxPayloadInMB": min(told.max_payload_mb or largest, largest),
    }


async def load_model(service: Service, call: Call) -> Reply:
    """409 when there is a model of that name, 507 when it does not fit."""
    repository = _repository(service)
    try:
        asked = msgspec.json.decode(call.body, type=LoadBody)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MalformedInput(f"The body must be {{model_name, url}}: {error}.") from None
    await service.in_thread(_load, repository, asked, Path(service.settings.home))
    return json_reply({"modelName": asked.model_name, "modelUrl": asked.url})


def _load(repository: Repository, asked: LoadBody, home: Path) -> None:
    scratch = _placed(home, asked.model_name)
    try:
        bundle = placed_bundle(Path(asked.url), scratch / "bundle")
    except NotFound as error:  # 404 would say that the model was not found among those that are loaded
        raise MalformedInput(str(error)) from None
    repository.load(asked.model_name, source=str(bundle))
    scratch.mkdir(parents=True, exist_ok=True)
    (scratch / "url").write_text(asked.url)


def _placed(home: Path, name: str) -> Path:
    """Where things about a model that was placed here lie; its name may be anything."""
    return home / "placed" / hashlib.sha256(name.encode()).hexdigest()[:16]


def _url(home: Path, name: str) -> str:
    """What the model was loaded from; empty for a model of the registry."""
    try:
        return (_placed(home, name) / "url").read_text()
    except FileNotFoundError:
        return ""


async def list_models(service: Service, call: Call) -> Reply:
    """What the caller's key reaches, by name, a page at a time; the token is the last name of the page before."""
    models = await _models(service)
    reach = service.access.models_of(call.caller)
    after = parse_qs(call.query).get("next_page_token", [""])[0]
    names = [name for name in sorted(models) if name > after and (reach is None or name in reach)]
    page = names[:MOST_MODELS]
    body: dict[str, Any] = {"models": [{"modelName": name, "modelUrl": models[name]} for name in page]}
    if len(names) > len(page):
        body["nextPageToken"] = page[-1]
    return json_reply(body)


async def get_model(service: Service, call: Call) -> Reply:
    name = call.names["model"]
    models = await _models(service)
    if name not in models:
        raise ModelNotFound(f"no model {name!r} is loaded.")
    return json_reply({"modelName": name, "modelUrl": models[name]})


async def unload_model(service: Service, call: Call) -> Reply:
    """Its memory is free when this is answered."""
    name = call.names["model"]
    repository = _repository(service)
    await service.in_thread(repository.unload, name)
    return json_reply({"modelName": name})


async def _models(service: Service) -> dict[str, str]:
    """What they were loaded from, by the names of the models that are loaded."""
    if service.repository is None:
        names = [model.route.model for model in service.plane.table]
    else:
        states = await service.in_thread(service.repository.index)
        names = [state.model for state in states if state.state in (State.ready, State.loading)]
    home = Path(service.settings.home)
    return {name: _url(home, name) for name in names}


def _repository(service: Service) -> Repository:
    if service.repository is None:
        raise NotSupported("this server loads no models while it serves.")
    return service.repository


ENTRIES = (
    Entry("GET", "/ping", "open", handler=ping),
    Entry("GET", "/execution-parameters", "infer", handler=execution_parameters),
    Entry("POST", "/models", "admin", handler=load_model),
    Entry("GET", "/models", "infer", handler=list_models),
    Entry("GET", "/models/{model}", "infer", handler=get_model),
    Entry("DELETE", "/models/{model}", "admin", handler=unload_model),
    Entry("POST", "/models/{model}/invoke", "infer", codec=CODEC),
)
