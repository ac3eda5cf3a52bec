"""Stretches on Spark: a DataFrame of their numbers, one to a partition, through `mapInArrow`.

The rows themselves do not go through Spark: it would read them by other rules than the server's (types of CSV cells,
NULLs, broken records), forget which row of which file each was, and its own writer commits all or nothing. So Spark is
given what it is good at, placing work on machines and doing lost work again, and a task is `worker.do_tasks`.

The bundle goes to the executors as a file of the session, named by its digest, which each fetches once; each Python
process of an executor loads it once, and is used again for the next task and the next run.
"""

from __future__ import annotations

import socket
import tempfile
import uuid
import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pyarrow as pa

from fairway.batch.bundles import pack, unpack
from fairway.batch.local import Model
from fairway.batch.worker import do_tasks
from fairway.core.errors import FairwayError, MissingExtra, SettingsError, Unavailable

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

OUTCOMES = "number long, outcome binary"
_TEXT = 400
_CONNECT_PORT, _CONNECT_SECONDS = 15002, 10.0


def open_session(master: str, options: Mapping[str, str]) -> tuple[SparkSession, bool]:
    """The session that is there already, else one at `master`; and whether it was begun here. Raises MissingExtra,
    SettingsError for options that Spark does not take, and Unavailable when the cluster is away."""
    try:
        from pyspark.sql import SparkSession  # the extra `spark`
    except ImportError as error:
        raise MissingExtra(
            "Spark needs the package pyspark.", hint="Install it with: pip install 'fairway[spark]'"
        ) from error
    # pandas is not used here: rows stay Arrow's.
    warnings.filterwarnings(
        "ignore", message="PySpark does not yet fully support pandas", category=FutureWarning
    )
    found = SparkSession.getActiveSession()
    if found is not None:
        return found, False
    builder: Any = SparkSession.builder.appName("fairway batch")
    if master.startswith("sc://"):
        builder = builder.remote(master)
    elif master:
        builder = builder.master(master)
    values = {"spark.ui.showConsoleProgress": "false", **options}
    for name, value in values.items():
        builder = builder.config(name, value)
    if master.startswith("sc://"):
        _check_connect(master)
    try:
        session: SparkSession = builder.getOrCreate()
    except ImportError as error:  # of what Spark Connect needs beside pyspark
        raise MissingExtra(
            f"Spark Connect lacks a package: {_first(error)}",
            hint="Install it with: pip install 'fairway[spark]'",
        ) from error
    except Exception as error:
        raise Unavailable(
            f"no Spark session at {master or 'the usual master'}: {_first(error)}",
            hint="Name the cluster with --spark-master spark://host:7077; Java 17 or newer must be on PATH.",
        ) from error
    if not master.startswith("sc://"):
        session.sparkContext.setLogLevel("ERROR")
    return session, True


def _check_connect(master: str) -> None:
    """Whether anything listens there: Spark itself asks again and again for ten minutes. Raises SettingsError,
    Unavailable."""
    try:
        place = urlsplit(master.partition(";")[0])
        host, port = place.hostname or "", place.port or _CONNECT_PORT
    except ValueError as error:
        raise SettingsError(f"{master.partition(';')[0]} is no address such as sc://host:15002.") from error
    try:
        socket.create_connection((host, port), timeout=_CONNECT_SECONDS).close()
    except OSError as error:
        raise Unavailable(
            f"no Spark Connect server answers at {host}:{port}: {error.strerror or error}.",
            hint="Start one with start-connect-server.sh, or name another with --spark-master sc://host:15002.",
        ) from error


def ship(session: SparkSession, model: Model) -> str:
    """Makes the model's archive a file of the session; gives the name by which executors ask for it.

    A session takes a name from one path only, and a process may ship a version many times: for runs, and for
    DataFrames, which are computed when somebody asks for their rows."""
    path = pack(model, Path(_archives().name))
    session.addArtifacts(str(path), file=True)
    return path.name


@cache
def _archives() -> tempfile.TemporaryDirectory[str]:
    """For the sessions of this process, until it ends."""
    return tempfile.TemporaryDirectory(prefix="fairway-spark-", ignore_cleanup_errors=True)


class SparkCluster:
    """A session that scores stretches of one run."""

    def __init__(self, session: SparkSession, model: Model) -> None:
        """Ships the bundle."""
        self._session = session
        self._digest = model.digest
        self._tag = f"fairway-{uuid.uuid4().hex[:12]}"
        try:
            self._file = ship(session, model)
            self.slots = _slots(session)
        except FairwayError:
            raise
        except Exception as error:
            raise Unavailable(f"Spark does not take the bundle: {_first(error)}") from error
        self.name = f"spark, {self.slots} slots"

    def do(self, job: bytes, tasks: Sequence[bytes]) -> list[bytes]:
        session, digest, file = self._session, self._digest, self._file
        listed = list(tasks)

        def score(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            from pyspark import SparkFiles

            archive = Path(SparkFiles.get(file))
            for batch in batches:
                for number in batch.column(0).to_pylist():
                    (outcome,) = do_tasks(job, [listed[number]], lambda: unpack(archive, digest))
                    columns = [pa.array([number], pa.int64()), pa.array([outcome], pa.binary())]
                    yield pa.RecordBatch.from_arrays(columns, names=["number", "outcome"])

        try:
            session.addTag(self._tag)
            numbers = session.range(0, len(listed), 1, len(listed))
            rows = numbers.mapInArrow(score, OUTCOMES).collect()
        except Exception as error:
            raise _lost(error) from error
        return [bytes(row["outcome"]) for row in rows]

    def cancel(self) -> None:
        try:
            self._session.interruptTag(self._tag)
        except Exception:  # noqa: BLE001 - the session may be what was lost; the first error is the one to tell
            return


def _slots(session: SparkSession) -> int:
    """Tasks at once. Executors come one by one: those that are there after a first job count."""
    session.range(0, 1, 1, 1).collect()
    context = getattr(session, "_sc", None)
    if context is None:  # Spark Connect does not say; waves grow anyway
        return 8
    return max(1, int(context.defaultParallelism))


def _lost(error: Exception) -> FairwayError:
    text = str(error)
    if "No module named 'fairway" in text:
        return SettingsError(
            "fairway is not installed in the Python of the executors.",
            hint="Install the same version there, or send an environment along: docs/guides/batch-on-clusters.md.",
        )
    return Unavailable(
        f"the Spark job failed: {_first(error)}",
    )


def _first(error: Exception) -> str:
    """What an error says, without the stack of Java's."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith(("at ", "File ", "Traceback", "..."))]
    return " ".join(told)[:_TEXT] or type(error).__name__
