"""Predictions of a run to the prediction log, so that the monitor sees them as it sees those of servers.

A part's rows are logged once the ledger has them: a run that is killed in between leaves them out, and no row is logged
twice. Each row is found by its key, as labels for a key are.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import msgspec
import numpy as np

from fairway.batch.score import LogRows
from fairway.core.request import BATCH, Request
from fairway.core.settings import Settings
from fairway.inference.live import LiveVersion
from fairway.inference.opening import recorder_of
from fairway.inference.predictions import Logged, Predictions
from fairway.inference.record import Recorder

_BITE_ROWS = 5_000
_QUEUE_ROWS, _QUEUE_BYTES = 1_000_000, 256 * 1024 * 1024


class Counted:
    """What becomes of rows."""

    def __init__(self) -> None:
        self.rows = 0
        self.lost = 0

    def dropped(self, model: str, rows: int) -> None:
        self.lost += rows

    def passed_over(self, model: str, rows: int) -> None:
        self.lost += rows

    def written(self, model: str, rows: int, size: int) -> None:
        self.rows += rows

    def failing(self, failing: bool) -> None:
        return

    def removed(self, model: str, segments: int) -> None:
        return


class Recording:
    """Of one run. `attempt` is its plan's."""

    def __init__(self, recorder: Recorder, counted: Counted, about: Logged, attempt: str) -> None:
        self._recorder, self._about, self._attempt = recorder, about, attempt
        self._counted = counted

    def record(self, part: str, logged: Sequence[LogRows]) -> None:
        """The rows of a part; returns when they are on the disk, or counted as lost."""
        number = 0
        for rows in logged:
            for begin in range(0, rows.columns.rows, _BITE_ROWS):
                bite = slice(begin, begin + _BITE_ROWS)
                keys = rows.keys[bite]
                self._recorder.record(
                    Predictions(
                        about=self._about,
                        requests=[self._request(f"{part}.{number}", keys)],
                        counts=[len(keys)],
                        time=time.time(),
                        seconds=[np.nan],  # nobody waited for these
                        columns=rows.columns.take(bite),
                        outputs={name: values[bite] for name, values in rows.outputs.items()},
                        sources=[BATCH],
                    )
                )
                self._recorder.commit()
                number += 1

    def _request(self, place: str, keys: Sequence[bytes]) -> Request:
        return Request(
            model=self._about.model,
            inputs={},
            request_id=f"{place}.{self._attempt[:8]}",
            version=str(self._about.version),
            protocol=BATCH,
            keys=keys,
        )

    @property
    def lost(self) -> int:
        return self._counted.lost


@contextmanager
def recording(live: LiveVersion, settings: Settings, attempt: str) -> Iterator[Recording]:
    """Into the log of the home."""
    log = msgspec.structs.replace(
        settings.log, durable=True, bytes_per_second=0, queue_rows=_QUEUE_ROWS, queue_bytes=_QUEUE_BYTES
    )
    counted = Counted()
    recorder = recorder_of(msgspec.structs.replace(settings, log=log), counted)
    about = msgspec.structs.replace(live.logged, sample=1.0)  # rows are chosen by their keys, before
    try:
        yield Recording(recorder, counted, about, attempt)
    finally:
        recorder.close()
