"""A control application over a registry and a store in memory, asked as browsers and programs ask."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx
import msgspec
import pytest

from fairway.control.desk import ScheduleDesk
from fairway.control.jobs import JobState
from fairway.control.web.app import control_app
from fairway.control.web.gate import Gate
from fairway.control.web.service import ControlState, Service
from fairway.control.web.session import Sessions
from fairway.core.alert_settings import AlertSettings
from fairway.core.errors import ModelNotFound, RunNotFound
from fairway.core.route import Route, everything_to
from fairway.core.settings import Settings
from fairway.core.version import Change, ModelVersion
from fairway.monitoring.alerts import Alerts
from fairway.registry.registry import ModelSummary
from fairway.security.access import Access
from fairway.security.keys import AccessKey, new_key
from fairway.stores.alerts_memory import MemoryAlerts
from fairway.stores.control_memory import MemoryControlStore
from fairway.stores.windows_memory import MemoryWindows

NAMES = ("churn", "payments")


@dataclass(frozen=True)
class BatchRun:
    run: str
    model: str
    version: int = 2
    state: str = "finished"
    reason: str = ""
    rows: int = 3
    rejected: int = 1
    created: str = "2026-01-01T00:00:00.000000Z"
    input: str = "/in"
    output: str = "/out"


class Client:
    """A browser, or a program: keeps cookies, follows nothing."""

    def __init__(self, app: Any, address: str, headers: dict[str, str]) -> None:
        self._app = app
        self._address = address
        self.headers = headers
        self.cookies = httpx.Cookies()

    def request(self, method: str, path: str, **values: Any) -> httpx.Response:
        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(app=self._app)
            async with httpx.AsyncClient(
                transport=transport, base_url=self._address, headers=self.headers, cookies=self.cookies
            ) as client:
                answer = await client.request(method, path, **values)
                self.cookies = client.cookies
                return answer

        return asyncio.run(ask())

    def get(self, path: str) -> httpx.Response:
        return self.request("GET", path)

    def post(self, path: str, **values: Any) -> httpx.Response:
        return self.request("POST", path, **values)


class Models:
    def models(self) -> tuple[ModelSummary, ...]:
        return tuple(
            ModelSummary(
                name=name, versions=2, latest=2, aliases={"champion": 2}, route=everything_to(name, 2)
            )
            for name in NAMES
        )

    def versions(self, name: str) -> tuple[ModelVersion, ...]:
        return tuple(
            ModelVersion(
                model=name, version=number, digest=f"sha256:{number:064x}", engine="onnx",
                created="2026-01-01T00:00:00.000000Z", created_by="ann",
            )
            for number in (1, 2)
        )  # fmt: skip

    def route(self, name: str) -> Route | None:
        return everything_to(name, 2, revision=1)

    def history(self, name: str, limit: int | None = 100) -> tuple[Change, ...]:
        return (
            Change(
                sequence=1, model=name, what="route", before=None,
                after=msgspec.json.encode(everything_to(name, 2)).decode(),
                who="ann", why="better", when="2026-01-01T00:00:00.000000Z",
            ),
        )  # fmt: skip


class Site:
    """`keys` are secrets by name; `clock` is the gate's."""

    def __init__(self) -> None:
        self.now = 1_000_000.0
        self.trouble = ""
        self.store = MemoryControlStore()
        self.windows = MemoryWindows()
        self.alerts = Alerts(MemoryAlerts(), AlertSettings(), {})
        self.keys: dict[str, str] = {}
        self._known: dict[str, AccessKey] = {}
        self.gate = Gate(Sessions(b"a secret", seconds=600), host="127.0.0.1", clock=lambda: self.now)
        self.service = Service(
            settings=Settings(home="/nowhere"),
            models=Models(),
            desk=ScheduleDesk(self.store, self._check_model),
            alerts=self.alerts,
            windows=self.windows,
            state=lambda: ControlState(
                leads=True, leader="here", registry=self.trouble, jobs=(JobState(name="j"),)
            ),
            batch_runs=lambda: [BatchRun("churn-1", "churn"), BatchRun("payments-1", "payments")],
            batch_run=self._batch_run,
            server="here",
        )
        self.app = control_app(self.service, self.gate)

    def key(self, name: str, *scopes: str, models: tuple[str, ...] = ()) -> str:
        made, secret = new_key(name, scopes=scopes, models=models, now=datetime.now(UTC))
        self._known[name], self.keys[name] = made, secret
        self.gate.access = Access(self._known.values())
        return secret

    def revoke(self, name: str) -> None:
        self._known[name] = msgspec.structs.replace(self._known[name], revoked="2026-01-01T00:00:00Z")
        self.gate.access = Access(self._known.values())

    def client(self, address: str = "http://127.0.0.1:8090", key: str = "") -> Client:
        return Client(self.app, address, {"authorization": f"Bearer {self.keys[key]}"} if key else {})

    def _check_model(self, reference: str) -> None:
        if reference.partition("@")[0].partition(":")[0] not in NAMES:
            raise ModelNotFound(f"There is no model {reference!r}.")

    def _batch_run(self, run: str) -> tuple[Any, Any]:
        for found in self.service.batch_runs():
            if found.run == run:
                return found, {"rows": 1}
        raise RunNotFound(f"there is no run {run}.")


@pytest.fixture
def site() -> Site:
    return Site()
