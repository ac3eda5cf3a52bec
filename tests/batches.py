"""Batch runs without a registry: a real run around an engine of one line."""

from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import msgspec
import pyarrow as pa
import pyarrow.dataset

from fairway.batch.ledger import Ledger
from fairway.batch.local import Scorer
from fairway.batch.plan import Options, Plan, now_text, pack_schema
from fairway.batch.report import Report
from fairway.batch.run import Run, Work
from fairway.batch.score import ForLog, Scored
from fairway.batch.sink import Sink, open_file_sink
from fairway.batch.source import Piece, Position, Reading, SourceFile, find_files, kept_schema, pieces
from tests.planes import TWO_NUMBERS, live_version

LOCAL = fsspec.filesystem("file")


class Files:
    def __init__(self, reading: Reading) -> None:
        self.reading = reading

    def pieces(self, file: SourceFile, start: Position) -> Generator[Piece]:
        yield from pieces(LOCAL, file, start, self.reading, TWO_NUMBERS)


def plan_for(files: list[SourceFile], output: Path, **options: Any) -> Plan:
    """A plan of small chunks and parts."""
    reading = Reading(
        chunk_rows=options.pop("chunk_rows", 3),
        chunk_bytes=options.pop("chunk_bytes", 24),
        kept=tuple(options.pop("kept", ("id",))),
    )
    part_rows = options.pop("part_rows", 5)
    most = {name: options.pop(name) for name in ("part_bytes", "part_rejects") if name in options}
    schema = kept_schema(LOCAL, files[0], reading, TWO_NUMBERS)
    return Plan(
        run="run",
        model="m",
        version=1,
        digest="sha256:1",
        options=Options(input="", output=str(output), **options),
        reading=reading,
        schema=pack_schema(schema),
        part_rows=part_rows,
        **most,
        call_rows=100,
        workers=2,
        processes=False,
        created=now_text(),
    )


def go(
    folder: Path,
    source: Path,
    output: Path,
    *,
    step: Callable[[str], None] = lambda name: None,
    sink: Callable[[Path], Sink] | None = None,
    flat: bool = False,
    engine: object | None = None,
    on_start: Callable[[Run], None] = lambda run: None,
    tell: Any = lambda progress: None,
    recording: Any = None,
    **options: Any,
) -> Report:
    """Begins the run in `folder`, or goes on with it."""
    if (folder / "ledger.db").exists():
        ledger = Ledger(folder)
    else:
        files = find_files(LOCAL, str(source))
        ledger = Ledger.create(folder, msgspec.json.encode(plan_for(files, output, **options)), files)
    try:
        with ledger.lock():
            plan = ledger.plan(Plan)
            ledger.begin()
            paths = [record.file.path for record in ledger.files()]
            target: Sink = (
                sink(folder)
                if sink
                else open_file_sink(LOCAL, str(output), format="", scratch=folder / "parts", inputs=paths)
            )
            run = Run(
                plan,
                ledger,
                TWO_NUMBERS,
                Files(plan.reading),
                target,
                flat=flat,
                recording=recording,
                step=step,
                tell=tell,
            )
            on_start(run)
            for_log = None if recording is None else ForLog("id")
            scorer = Scorer(live_version(1, engine), plan.kept, plan.call_rows, for_log=for_log)

            def score(work: Work) -> Scored | None:
                return scorer(work) if work.piece is not None else None

            try:
                with ThreadPoolExecutor(2) as pool:
                    return run.go(pool, score)
            finally:
                target.close()
    finally:
        ledger.close()


def csv_rows(rows: int, bad: tuple[int, ...] = (), first: int = 0) -> str:
    lines = [f"{first + i},{'?' if i in bad else i},{i % 10}" for i in range(rows)]
    return "\n".join(["id,a,b", *lines]) + "\n"


def table(output: Path) -> pa.Table:
    return pyarrow.dataset.dataset(output, exclude_invalid_files=False).to_table()
