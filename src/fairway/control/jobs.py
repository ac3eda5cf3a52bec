"""What the control process does again and again, a thread each: schedules, monitors, rollouts, retention.

A job that only one process may do at a time is done by the leader. Its `turn` has the token that the stores ask for, and
says when it is over.
"""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod
from datetime import UTC, datetime

import msgspec

from fairway.control.leadership import Leadership
from fairway.core.clock import utc_text
from fairway.core.errors import FairwayError, LeaseLost

logger = logging.getLogger("fairway.control")


class Turn:
    """One doing of a job."""

    def __init__(self, leadership: Leadership, stopping: threading.Event, *, leader_only: bool) -> None:
        self._leadership = leadership
        self._stopping = stopping
        self._leader_only = leader_only

    @property
    def token(self) -> int:
        """For the stores' leader-only methods. LeaseLost once this process does not lead any more."""
        return self._leadership.token

    @property
    def held_until(self) -> float:
        """Until when this process leads unless it renews its lease, on `leadership.machine_clock`."""
        return self._leadership.held_until

    @property
    def is_over(self) -> bool:
        """Long jobs ask between their steps, and end early."""
        return self._stopping.is_set() or (self._leader_only and not self._leadership.leads)


class PeriodicJob(ABC):
    """Register one in `app/control_jobs.py`."""

    name: str
    interval_seconds: float
    """From the end of one turn to the begin of the next."""
    leader_only: bool
    """False for what concerns this machine's own files."""

    @abstractmethod
    def run(self, turn: Turn) -> None:
        """What it raises is logged, and the next turn comes all the same."""

    def lose(self) -> None:
        """This process does not lead any more: drop at once what only a leader may do. Called in the job's own thread."""
        return

    def close(self, turn: Turn) -> None:
        """The control process ends; it still leads if it did. Called in the job's own thread."""
        return


class JobState(msgspec.Struct, frozen=True, kw_only=True):
    """A job as `/api/v1/control` tells it."""

    name: str
    turns: int = 0
    last_ended: str = ""
    error: str = ""
    """Why the last turn failed; empty when it did not."""


class JobRunner:
    """`start` begins; `stop` ends every job in order, within a time."""

    def __init__(self, leadership: Leadership, jobs: tuple[PeriodicJob, ...]) -> None:
        self._leadership = leadership
        self._jobs = jobs
        self._stopping = threading.Event()
        self.ended = threading.Event()
        """Set once `stop` is done: no job does anything any more."""
        self._states = {job.name: JobState(name=job.name) for job in jobs}
        self._threads = [
            threading.Thread(target=self._repeat, args=(job,), name=job.name, daemon=True) for job in jobs
        ]

    @property
    def states(self) -> tuple[JobState, ...]:
        return tuple(self._states.values())

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self, seconds: float) -> None:
        """Jobs have `seconds` to come to their end together; those that do not are left to die with the process."""
        self._stopping.set()
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        self.ended.set()

    def _repeat(self, job: PeriodicJob) -> None:
        led = False
        turn = Turn(self._leadership, self._stopping, leader_only=job.leader_only)
        while not self._stopping.is_set():
            leads = self._leadership.leads
            if led and not leads:
                job.lose()
            led = leads
            if leads or not job.leader_only:
                self._take_turn(job, turn)
            self._stopping.wait(job.interval_seconds)
        try:
            job.close(turn)
        except FairwayError as error:
            logger.warning("%s: %s", job.name, error)

    def _take_turn(self, job: PeriodicJob, turn: Turn) -> None:
        before = self._states[job.name]
        error = ""
        try:
            job.run(turn)
        except LeaseLost as lost:
            job.lose()
            error = str(lost)
        except FairwayError as failure:
            error = str(failure)
            if error != before.error:  # said once, not every second
                logger.warning("%s: %s", job.name, error)
        except Exception as failure:  # one job's mistake must not end the others
            error = f"{type(failure).__name__}: {failure}"
            if error != before.error:
                logger.exception("%s failed", job.name)
        if before.error and not error:
            logger.warning("%s works again", job.name)
        self._states[job.name] = JobState(
            name=job.name, turns=before.turns + 1, last_ended=utc_text(datetime.now(UTC)), error=error
        )
