"""An alarm that lasts: drift is told of when it is seen in several windows of a row, and is over when it is not seen in
as many. Windows with too few rows are passed over: they say neither yes nor no.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from fairway.core.errors import InvalidInput
from fairway.monitoring.drift.values import ColumnDrift, DriftReport


class Lasting(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One column over a series of windows. `since` is the position of the first drifted window of what lasts now, None
    when nothing lasts. `drifted_windows` of `windows` were drifted among the last ones looked at."""

    name: str
    lasts: bool
    since: int | None = None
    drifted_windows: int = 0
    windows: int = 0
    latest: ColumnDrift | None = None


def lasting_drift(reports: Sequence[DriftReport], *, need: int = 2, of: int = 3) -> tuple[Lasting, ...]:
    """What lasts at the end of `reports`, oldest first: every column, and the columns together.

    It begins when `need` of the last `of` judged windows were drifted, and ends when fewer than that are and the latest
    is not. Raises InvalidInput unless 1 <= need <= of."""
    if not 1 <= need <= of:
        raise InvalidInput(f"{need} of {of} windows: needs at least 1, and at most all of them.")
    names = dict.fromkeys(column.name for report in reports for column in _columns(report))
    return tuple(_lasting(name, reports, need, of) for name in names)


def _columns(report: DriftReport) -> tuple[ColumnDrift, ...]:
    return report.columns if report.multivariate is None else (*report.columns, report.multivariate)


def _lasting(name: str, reports: Sequence[DriftReport], need: int, of: int) -> Lasting:
    judged = [
        (at, column)
        for at, report in enumerate(reports)
        for column in _columns(report)
        if column.name == name and column.status != "too few rows"
    ]
    since: int | None = None
    lasts = False
    for i in range(len(judged)):
        recent = judged[max(0, i - of + 1) : i + 1]
        drifted = [at for at, column in recent if column.drifted]
        if len(drifted) >= need:
            since = drifted[0] if since is None else since
            lasts = True
        elif not judged[i][1].drifted:
            lasts, since = False, None
    recent = judged[-of:]
    return Lasting(
        name=name,
        lasts=lasts,
        since=since,
        drifted_windows=sum(column.drifted for _, column in recent),
        windows=len(recent),
        latest=judged[-1][1] if judged else None,
    )
