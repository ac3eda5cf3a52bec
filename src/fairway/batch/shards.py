"""A run that several processes score, each its share, that know of each other only by notes beside the output.

    plan            the plan, the files and the stretches: written by the first shard to come, read by the others
    done-FILE-PART  the outcome of a stretch, written when its rows are where they belong
    finish          which shard ends the run: the first that sees every stretch done
    report          of the whole run; who finds it has nothing to do

Stretch number k is shard k % n's. A shard that dies is run again, here or on another machine: it reads what it has
done from the notes, and does the rest. Killed between a stretch's rows and its note, it does that stretch again: the
same rows under the same name, or the mark of its part in the table.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import msgspec

from fairway.batch.ledger import State
from fairway.batch.notes import Notes
from fairway.batch.plan import Plan
from fairway.batch.report import Report
from fairway.batch.run import Work
from fairway.batch.score import Scored
from fairway.batch.sink import PartWriter, Sink, Written
from fairway.batch.source import SourceFile
from fairway.batch.spread import Spread
from fairway.batch.stretches import Stretch, remaining
from fairway.batch.worker import Outcome, decode_outcome
from fairway.core.errors import InvalidInput

MOST_SHARDS = 10_000


class Shard(msgspec.Struct, frozen=True):
    """Number `index` (from 0) of `count`."""

    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


class Agreed(msgspec.Struct, frozen=True, kw_only=True):
    """What all shards of a run go by. The plan's URLs are without their passwords: every shard has its own."""

    plan: Plan
    files: tuple[SourceFile, ...]
    stretches: tuple[Stretch, ...]
    shards: int


def read_shard(text: str, index: str = "") -> Shard:
    """`i/n`, or `n` where the array job says which one this is (`index`). Raises InvalidInput."""
    own, slash, count = text.rpartition("/")
    own = own if slash else index
    if not own:
        raise InvalidInput(
            f"--shard {text} does not say which shard this is.",
            hint="Say --shard 0/4 to --shard 3/4; the number alone is enough where JOB_COMPLETION_INDEX, "
            "AWS_BATCH_JOB_ARRAY_INDEX, SLURM_ARRAY_TASK_ID or BATCH_TASK_INDEX is set.",
        )
    if not (own.isdecimal() and count.isdecimal() and 0 < int(count) <= MOST_SHARDS):
        raise InvalidInput(f"--shard {text!r} is not i/n, such as 0/4, with at most {MOST_SHARDS} shards.")
    if int(own) >= int(count):
        raise InvalidInput(
            f"there is no shard {own} of {count}: they are numbered from 0 to {int(count) - 1}."
        )
    return Shard(int(own), int(count))


def note_name(stretch: Stretch) -> str:
    return f"done-{stretch.file:06d}-{stretch.part:06d}"


class ShardRun(Spread):
    """One shard's go at its share."""

    def __init__(self, notes: Notes, shard: Shard, job: Any, ledger: Any, contract: Any, sink: Sink, *others: Any, **options: Any) -> None:  # fmt: skip
        self._notes, self._shard = notes, shard
        self._held = _Held(sink)
        super().__init__(job, ledger, contract, self._held, *others, **options)

    @property
    def is_whole(self) -> bool:
        return self._held.is_released

    @property
    def _engine(self) -> str:
        return f"{self._shard.count} shards" if self.is_whole else f"shard {self._shard}, {super()._engine}"

    def _loop(self, pool: Executor, score: Callable[[Work], Scored | None]) -> tuple[State, str]:
        own = {note_name(stretch) for stretch in self._stretches if self._mine(stretch)}
        self._enter_all(
            outcome for name, outcome in self._noted().items() if name in own and not outcome.error
        )
        state, reason = super()._loop(pool, score)
        for number, error in self._errors.items():
            self._ledger.end_file(number, "failed", error)
        if state != "finished":
            return state, reason
        noted = self._noted()
        to_come = sum(note_name(stretch) not in noted for stretch in self._stretches)
        if to_come:
            return "finished", f"its share; {to_come} stretches of other shards are still to come"
        own_name = str(self._shard.index).encode()
        chosen = self._notes.create("finish", own_name)
        if chosen != own_name:
            return "finished", f"its share; shard {chosen.decode()} ends the run"
        self._held.is_released = True
        self._enter_all(outcome for name, outcome in noted.items() if name not in own)
        if self._limit.is_passed(self._rejects, self._rows, ended=True):
            return "stopped", self._too_many()
        return "finished", ""

    def _noted(self) -> dict[str, Outcome]:
        found = self._notes.all("done-").items()
        return {name: decode_outcome(content) for name, content in found}

    def _enter_all(self, outcomes: Iterable[Outcome]) -> None:
        """Enters what other processes have got."""
        left = remaining(self._stretches, self._ledger.files(), self._ledger.parts())
        self._left = Counter(stretch.file for stretch in left)
        for outcome in outcomes:
            self._enter(outcome, noted=True)

    def _end(self, state: State, reason: str) -> Report:
        report = super()._end(state, reason)
        if self.is_whole and state == "finished":
            self._notes.put("report", msgspec.json.encode(report))
        return report


class _Held:
    """The run's sink, which only the shard that ends the run may finish."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self.is_released = False

    def check(self, *, overwrite: bool) -> None:
        self._sink.check(overwrite=overwrite)

    def begin(self, folder: str, name: str, schema: Any) -> PartWriter:
        return self._sink.begin(folder, name, schema)

    def finish(
        self, parts: Sequence[Written], rejects: Sequence[Path], manifest: bytes, *, whole: bool
    ) -> str:
        return self._sink.finish(parts, rejects, manifest, whole=whole) if self.is_released else ""

    def close(self) -> None:
        self._sink.close()
