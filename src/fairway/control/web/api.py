"""`/api/v1`: schedules, their runs, batch runs, models, and how the control process is. JSON both ways.

Looking needs a key with the scope `metrics` or `admin`, changing one with `admin`; a key made for some models sees and
changes what belongs to them. `openapi.py` describes this table.
"""

from __future__ import annotations

from typing import Any

from fairway.control.desk import MOST_HISTORY
from fairway.control.views import ScheduleView
from fairway.control.web.routes import ApiRoute, Call
from fairway.control.web.service import ControlState
from fairway.core.errors import RegistryUnavailable
from fairway.core.schedule import Schedule, ScheduleRun
from fairway.core.version import parse_reference
from fairway.registry.registry import ModelSummary


def _health(call: Call) -> dict[str, str]:
    if call.service.state().registry:
        raise RegistryUnavailable("The registry's database is away.")
    return {"status": "ok"}


def _state(call: Call) -> ControlState:
    return call.service.state()


def _models(call: Call) -> list[ModelSummary]:
    return [model for model in call.service.models.models() if call.visitor.reaches(model.name)]


def _schedules(call: Call) -> list[ScheduleView]:
    return [view for view in call.service.desk.list() if call.visitor.reaches(_model(view.schedule))]


def _add(call: Call) -> ScheduleView:
    schedule: Schedule = call.body
    call.gate.check_model(call.visitor, _model(schedule))
    return call.service.desk.add(schedule, who=call.visitor.name)


def _show(call: Call) -> ScheduleView:
    _check_seen(call)
    return call.service.desk.show(call.names["name"])


def _remove(call: Call) -> None:
    _check_changed(call)
    call.service.desk.remove(call.names["name"])


def _pause(call: Call) -> ScheduleView:
    _check_changed(call)
    return call.service.desk.pause(call.names["name"])


def _resume(call: Call) -> ScheduleView:
    _check_changed(call)
    return call.service.desk.resume(call.names["name"])


def _run(call: Call) -> ScheduleRun:
    _check_changed(call)
    return call.service.desk.run(call.names["name"], who=call.visitor.name)


def _runs(call: Call) -> tuple[ScheduleRun, ...]:
    _check_seen(call)
    return call.service.desk.history(call.names["name"], call.number("limit", 50, MOST_HISTORY))


def _all_runs(call: Call) -> list[ScheduleRun]:
    found = call.service.desk.history(None, call.number("limit", 50, MOST_HISTORY))
    return [run for run in found if call.visitor.reaches(parse_reference(run.model).model)]


def _batch_runs(call: Call) -> list[Any]:
    most = call.number("limit", 50, MOST_HISTORY)
    return [run for run in call.service.batch_runs() if call.visitor.reaches(run.model)][:most]


def _batch_run(call: Call) -> Any:
    run, report = call.service.batch_run(call.names["run"])
    if not call.visitor.reaches(run.model):
        call.gate.check_model(call.visitor, run.model)
    return {"run": run, "report": report}


def _check_seen(call: Call) -> None:
    """A key made for other models is refused in the words for that, whether there is such a schedule or not to it."""
    model = call.service.desk.model_of(call.names["name"])
    if not call.visitor.reaches(model):
        call.gate.check_model(call.visitor, model)


def _check_changed(call: Call) -> None:
    call.gate.check_model(call.visitor, call.service.desk.model_of(call.names["name"]))


def _model(schedule: Schedule) -> str:
    return parse_reference(schedule.work.model).model


ROUTES: tuple[ApiRoute, ...] = (
    ApiRoute(
        method="GET", path="/health", access="open", handler=_health,
        summary="Whether this process and its database work.", gives=dict[str, str],
    ),
    ApiRoute(
        method="GET", path="/api/v1/control", access="read", handler=_state,
        summary="Who leads, and what is done again and again.", gives=ControlState,
    ),
    ApiRoute(
        method="GET", path="/api/v1/models", access="read", handler=_models,
        summary="The models.", gives=list[ModelSummary],
    ),
    ApiRoute(
        method="GET", path="/api/v1/schedules", access="read", handler=_schedules,
        summary="The schedules, with when each is due next.", gives=list[ScheduleView],
    ),
    ApiRoute(
        method="POST", path="/api/v1/schedules", access="write", handler=_add, status=201,
        summary="Adds a schedule. Paths must hold where the control process stands.", takes=Schedule, gives=ScheduleView,
    ),
    ApiRoute(
        method="GET", path="/api/v1/schedules/{name}", access="read", handler=_show,
        summary="One schedule.", gives=ScheduleView,
    ),
    ApiRoute(
        method="DELETE", path="/api/v1/schedules/{name}", access="write", handler=_remove, status=204,
        summary="Removes a schedule and its history; a run that has begun is ended.",
    ),
    ApiRoute(
        method="POST", path="/api/v1/schedules/{name}/pause", access="write", handler=_pause,
        summary="Nothing more begins until it is resumed.", gives=ScheduleView,
    ),
    ApiRoute(
        method="POST", path="/api/v1/schedules/{name}/resume", access="write", handler=_resume,
        summary="What is due from now on is run again.", gives=ScheduleView,
    ),
    ApiRoute(
        method="POST", path="/api/v1/schedules/{name}/run", access="write", handler=_run, status=202,
        summary="Runs it now, beside what is due.", gives=ScheduleRun,
    ),
    ApiRoute(
        method="GET", path="/api/v1/schedules/{name}/runs", access="read", handler=_runs,
        summary="Its history, the newest first; limit= says how many.", gives=list[ScheduleRun],
    ),
    ApiRoute(
        method="GET", path="/api/v1/schedule-runs", access="read", handler=_all_runs,
        summary="The history of all schedules, the newest first; limit= says how many.", gives=list[ScheduleRun],
    ),
    ApiRoute(
        method="GET", path="/api/v1/batch/runs", access="read", handler=_batch_runs,
        summary="The batch runs of this process's home, the last begun first; limit= says how many.", gives=list[Any],
    ),
    ApiRoute(
        method="GET", path="/api/v1/batch/runs/{run}", access="read", handler=_batch_run,
        summary="A batch run and its report.", gives=dict[str, Any],
    ),
)  # fmt: skip
