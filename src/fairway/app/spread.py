"""Batch runs on clusters wired up: a session or connection, stretches, and a driver that hands them out."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fairway.app.home import Home
from fairway.batch.bundles import for_workers
from fairway.batch.ledger import Ledger
from fairway.batch.local import Model, open_watch
from fairway.batch.on_ray import RayCluster, open_ray
from fairway.batch.on_spark import SparkCluster, open_session
from fairway.batch.plan import EngineName, Options, Plan, output_schema, part_rows
from fairway.batch.report import Report
from fairway.batch.run import Run, Tell
from fairway.batch.score import Calls
from fairway.batch.shared import Gathered, share, tidy, with_probe
from fairway.batch.sink import Sink
from fairway.batch.source import Reading, SourceFile, file_system
from fairway.batch.spread import Cluster, Here, Spread
from fairway.batch.sql import SqlSource, is_sql, read_place
from fairway.batch.stretches import (
    Stretch,
    estimate_rows,
    open_stretches,
    part_rows_for,
    plan_files,
    plan_keys,
    saved,
)
from fairway.batch.worker import Job, Outcome
from fairway.core.contract import Contract
from fairway.core.errors import InvalidInput
from fairway.core.release import VERSION
from fairway.core.settings import Settings
from fairway.inference.live import LiveVersion


@contextmanager
def open_cluster(
    engine: EngineName, address: str, settings: Settings, model: Model
) -> Iterator[Cluster | None]:
    """The cluster of an engine, with the model's bundle on its way to it; None for the local engine. What was begun
    here is ended here; a session or connection that the process has already is used and left."""
    if engine == "spark":
        # Spark's own default is "python3" of whatever machine, which is rarely where Fairway is installed.
        python = settings.batch.spark.get("spark.pyspark.python", sys.executable)
        os.environ.setdefault("PYSPARK_PYTHON", python)
        session, ours = open_session(address or settings.batch.spark_master, settings.batch.spark)
        try:
            yield SparkCluster(session, model)
        finally:
            if ours:
                session.stop()
    elif engine == "ray":
        ray, ours = open_ray(address or settings.batch.ray_address)
        try:
            with TemporaryDirectory(prefix="fairway-bundle-") as scratch:
                cluster = RayCluster(ray, model, Path(scratch))
            yield cluster
        finally:
            if ours:
                ray.shutdown()
    else:
        yield None


def cut(
    place: Home,
    options: Options,
    files: Sequence[SourceFile],
    reading: Reading,
    contract: Contract,
    calls: Calls,
    slots: int,
) -> tuple[int, list[Stretch]]:
    """Rows of a part, and the stretches of the whole input. Nobody can say ahead where files of some size end: with a
    file size given, each input file is one stretch."""
    most = part_rows(options, calls, 1, sql=is_sql(options.output))
    if is_sql(options.input):
        source = SqlSource(read_place(options.input))
        try:
            rows = options.rows_per_file or part_rows_for(source.count(), slots, most, 1)
            return rows, plan_keys(source, reading.chunk_rows, rows)
        finally:
            source.close()
    fs, _ = file_system(options.input, place.settings.batch.storage)
    estimated = 0 if options.rows_per_file else estimate_rows(fs, files, reading)
    rows = options.rows_per_file or part_rows_for(estimated, slots, most, min(most, reading.chunk_rows))
    if options.file_bytes:
        return rows, [Stretch(number) for number in range(len(files))]
    return rows, plan_files(fs, files, reading, contract, rows)


def check_reachable(options: Options) -> None:
    """Raises InvalidInput for databases that no other machine can find."""
    for url in (options.input, options.output):
        if url.startswith("sqlite:///") and not url.startswith("sqlite:////"):
            raise InvalidInput(
                f"{url} is a file of this machine's current folder, which no worker of a cluster is in.",
                hint="Name its whole path (sqlite:////...) on a file system that all machines mount.",
            )


def is_spread(ledger: Ledger) -> bool:
    return saved(ledger.folder) is not None


def go_spread(
    place: Home,
    plan: Plan,
    ledger: Ledger,
    model: Model,
    live: LiveVersion,
    own: Sink,
    cluster: Cluster | None,
    *,
    flat: bool,
    tell: Tell,
    started: Callable[[Run], None],
    note: Callable[[Outcome], None] = lambda outcome: None,
    mine: Callable[[Stretch], bool] = lambda stretch: True,
    make: Callable[..., Spread] = Spread,
) -> Report:
    """One go at a run by stretches, in this process when there is no cluster. `own` is the local engine's sink."""
    here = cluster is None or isinstance(cluster, Here)
    if not here:
        check_reachable(plan.options)
    cluster = cluster or Here(Path(model.directory), f"local, {plan.workers} stretches at once", plan.workers)
    sink, target = share(own, plan.options.output, ledger.folder / "parts")
    stretches = saved(ledger.folder) or open_stretches(ledger.files())
    settings = place.settings
    sink.begin("", "part-try", output_schema(plan.kept, live.contract, flat=flat)).abort()
    if not here:
        target = with_probe(target, plan.run, settings.batch.storage)
    job = Job(
        plan=plan,
        model=model,
        settings=settings if here else for_workers(settings),
        target=target,
        flat=flat,
        fairway=VERSION,
    )
    options: dict[str, Any] = {"watch": open_watch(model, live), "tell": tell, "note": note, "mine": mine}
    run = make(job, ledger, live.contract, sink, cluster, stretches, **options)
    started(run)
    report = run.spread()
    if run.is_whole and report.state == "finished" and not report.failed_files:
        tidy(target)
        if isinstance(sink, Gathered):
            sink.discard()
    return report
