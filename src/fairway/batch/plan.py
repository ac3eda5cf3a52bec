"""What a run will do, decided once and written down: a run that goes on later goes on by it."""

from __future__ import annotations

import base64
import hashlib
import re
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal

import msgspec
import pyarrow as pa

from fairway.batch.columns import output_type
from fairway.batch.score import Calls
from fairway.batch.source import Reading, SourceFile
from fairway.core.contract import Contract
from fairway.core.errors import InvalidInput, UnsupportedContent

EngineName = Literal["local", "spark", "ray", "shard"]
"""Where chunks are scored."""
_CHUNK_SECONDS, _CHUNK_ROWS = 1.0, 65_536
_PART_SECONDS, _PART_ROWS = 60.0, 1_000_000
_SQL_PART_ROWS = 50_000
_VALUE_BYTES = 12
"""About what a value takes as text."""
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?i?b)", re.IGNORECASE)
_UNITS = {"b": 1} | {
    f"{u}{i}b": (1024 if i else 1000) ** n for n, u in enumerate("kmgt", 1) for i in ("", "i")
}
_MOST_CHUNK_BYTES = 4 * 1024 * 1024
_MOST_CHUNK_VALUES = 2 * 1024 * 1024


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What the user asked for. `keep` are input columns that go to the output; `join` keeps all. `format` of output
    files, `rows_per_file` in them, `file_bytes` from which on one is full, their `compression`; "" and 0 leave it to the plan. `max_errors` as "1%" or "100"; "" for any number.
    `workers` 0: one for each core. `log` is the kept column under whose values predictions go to the log; "" for none."""

    input: str
    output: str
    keep: tuple[str, ...] = ()
    join: bool = False
    format: str = ""
    input_format: str = ""
    encoding: str = "utf-8"
    delimiter: str = ""
    rows_per_file: int = 0
    file_bytes: int = 0
    compression: str = ""
    max_errors: str = ""
    workers: int = 0
    log: str = ""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """`schema` are the kept columns (see `kept`). A part, which is an output file, ends with the first chunk that
    brings it to `part_rows` rows, to `part_rejects` rejects (they are in
    memory until then), or to `part_bytes` bytes unless that is 0. `engine` is what the run was begun on. `attempt` is no
    other run's, ever; names come again: the same work from another home, or after the run was forgotten. `input` and `output` hold passwords where the user gave them; show `shown_input`."""

    run: str
    model: str
    version: int
    digest: str
    options: Options
    reading: Reading
    schema: str
    part_rows: int
    part_bytes: int = 0
    part_rejects: int = 50_000
    call_rows: int
    workers: int
    processes: bool
    created: str
    engine: EngineName = "local"
    notes: tuple[str, ...] = ()
    attempt: str = msgspec.field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def kept(self) -> pa.Schema:
        return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(self.schema)))


class ErrorLimit(msgspec.Struct, frozen=True):
    """Most rejects: `share` of the rows (0 to 1), or `rows`; None sets no limit."""

    share: float | None = None
    rows: int | None = None

    def is_passed(self, rejects: int, rows: int, *, ended: bool) -> bool:
        """A share is judged from 1,000 rows on, or at the end."""
        if self.rows is not None:
            return rejects > self.rows
        return self.share is not None and (ended or rows >= 1000) and rejects > self.share * rows


def read_size(text: str) -> int:
    """Bytes of a size such as 128MB or 1GiB; 0 for "". Raises InvalidInput."""
    found = _SIZE.fullmatch(text.strip())
    if not text:
        return 0
    if found is None or not float(found[1]):
        raise InvalidInput(f"--file-size {text!r} is no size such as 128MB.")
    return int(float(found[1]) * _UNITS[found[2].lower()])


def read_limit(text: str) -> ErrorLimit:
    """Raises InvalidInput for what is neither a share such as 1% nor a number."""
    if not text:
        return ErrorLimit()
    try:
        if text.endswith("%"):
            share = float(text[:-1]) / 100
            if 0 <= share <= 1:
                return ErrorLimit(share=share)
        elif int(text) >= 0:
            return ErrorLimit(rows=int(text))
    except ValueError:
        pass
    raise InvalidInput(f"--max-errors {text!r} is neither a share such as 1% nor a number of rows.")


def run_name(model: str, digest: str, options: Options, files: Sequence[SourceFile]) -> str:
    """The same for the same model, input and output, so that the same run again is found to be the same."""
    same = (
        digest,
        options.input,
        options.output,
        options.keep,
        options.join,
        options.format,
        options.encoding,
    )
    form = (options.delimiter, options.rows_per_file, options.file_bytes, options.compression)
    content = msgspec.json.encode((same, form, files))
    return f"{model}-{hashlib.sha256(content).hexdigest()[:10]}"


def make_reading(options: Options, contract: Contract, calls: Calls) -> Reading:
    """Chunks that take about a second to score, are never large, and no larger than a file is to be."""
    width = max(1, len(contract.inputs))
    most = max(256, min(_CHUNK_ROWS, _MOST_CHUNK_VALUES // width))
    rows = max(1, min(most, int(_CHUNK_SECONDS / max(calls.seconds_a_row, 1e-9))))
    rows = min(rows, options.rows_per_file or rows)
    size = min(_MOST_CHUNK_BYTES, max(1024, rows * width * _VALUE_BYTES))
    return Reading(
        chunk_rows=rows,
        chunk_bytes=size,
        kept=None if options.join else options.keep,
        encoding=options.encoding,
        delimiter=options.delimiter,
    )


def part_rows(options: Options, calls: Calls, workers: int, *, sql: bool) -> int:
    """Rows of a part: what a minute scores, so that no more is lost when a run is killed. A size in bytes goes before
    the most rows of a part, not before the minute."""
    if options.rows_per_file:
        return options.rows_per_file
    if options.file_bytes and not sql:
        return max(1, int(workers * _PART_SECONDS / max(calls.seconds_a_row, 1e-9)))
    most = _SQL_PART_ROWS if sql else _PART_ROWS
    return max(1, min(most, int(workers * _PART_SECONDS / max(calls.seconds_a_row, 1e-9))))


def output_names(kept: pa.Schema, contract: Contract) -> list[str]:
    """Names of the kept columns in the output: one that is also an output of the model becomes `input_NAME`."""
    outputs = {output.name for output in contract.outputs}
    names = [f"input_{name}" if name in outputs else name for name in kept.names]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InvalidInput(f"kept columns would have the same name in the output: {', '.join(twice)}.")
    return names


def output_schema(kept: pa.Schema, contract: Contract, *, flat: bool) -> pa.Schema:
    """Of every output file. Raises UnsupportedContent for kept lists where the output is text or SQL."""
    names = output_names(kept, contract)
    fields = [pa.field(name, field.type) for name, field in zip(names, kept, strict=True)]
    nested = [
        f.name for f in fields if pa.types.is_nested(f.type) and not pa.types.is_fixed_size_list(f.type)
    ]
    if flat and nested:
        raise UnsupportedContent(
            f"CSV and SQL have no form for the lists in {', '.join(nested)}.",
            hint="Write Parquet, Arrow or JSON Lines, or leave these columns out.",
        )
    return pa.schema([*fields, *(pa.field(o.name, output_type(o)) for o in contract.outputs)])


def pack_schema(schema: pa.Schema) -> str:
    return base64.b64encode(schema.serialize().to_pybytes()).decode()


def now_text() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
