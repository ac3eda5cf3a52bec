"""What a report tells, from the stores."""

from __future__ import annotations

import msgspec

from fairway.control.web.dashboard.charts import Mark
from fairway.control.web.dashboard.seen import report_in
from fairway.control.web.dashboard.series import Seen, read_windows
from fairway.core.errors import NotFound
from fairway.core.incident import Incident
from fairway.monitoring.watch.values import Report
from fairway.stores.windows import WindowStore


class Gathered(msgspec.Struct, frozen=True, kw_only=True):
    """A version in a time; `windows` the oldest first. `report` is the latest window with rows, `labelled` the latest whose
    performance labels tell; None where there is none."""

    model: str
    version: int
    made: str
    windows: tuple[Seen, ...]
    report: Report | None
    labelled: Report | None
    incidents: tuple[Incident, ...]

    @property
    def marks(self) -> tuple[Mark, ...]:
        return Mark.of(self.incidents)


def gather(
    windows: WindowStore,
    incidents: tuple[Incident, ...],
    model: str,
    version: int | None,
    *,
    since: str = "",
    until: str = "",
    limit: int,
    made: str,
) -> Gathered:
    """The latest `limit` windows of a version, of the one that was looked at last where None is given. `incidents` are of
    the model; those of other versions or times are left out. NotFound without windows."""
    if version is None:
        keys = [key for key in windows.watched(until=made) if key.model == model]
        version = max(keys, key=lambda key: (key.start, key.version)).version if keys else 0
    found = read_windows(windows, model, version, since=since, until=until, limit=limit)
    if not found:
        raise NotFound(
            f"no window of {model}{f':{version}' if version else ''} was looked at"
            f"{' in this time' if since or until else ''}.",
            hint="The control process looks at windows once they are over; `fairway monitor look` does it now.",
        )
    latest = next((seen.key for seen in reversed(found) if seen.summary.rows), found[-1].key)
    told = next((seen.key for seen in reversed(found) if seen.summary.performance), None)
    begun, over = found[0].key.start, found[-1].summary.end
    return Gathered(
        model=model,
        version=version,
        made=made,
        windows=found,
        report=report_in(windows.window(latest)),
        labelled=None if told is None else report_in(windows.window(told)),
        incidents=tuple(
            incident
            for incident in incidents
            if incident.version in (0, version)
            and incident.opened
            and incident.opened <= max(over, made if not until else over)
            and (incident.resolved is None or incident.resolved.when >= begun)
        ),
    )
