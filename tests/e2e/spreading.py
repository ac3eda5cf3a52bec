"""A driver of a cluster in a process of its own: python -m tests.e2e.spreading spark|connect|ray ADDRESS HOME.

For each line of its input, a JSON object of arguments of `run_batch`, it does the run and prints the report; for
{"frame": FILE} it scores a DataFrame or Dataset of the Parquet file and prints the rows. What Spark and Ray print goes
to standard error, as in the command line.
"""

import json
import os
import sys
from contextlib import redirect_stdout
from typing import Any, TextIO

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from fairway.app.batch import run_batch
from fairway.app.settings import read_settings
from fairway.batch.on_ray import open_ray
from fairway.batch.on_spark import open_session
from fairway.core.errors import FairwayError


def main(engine: str, address: str, home: str, answers: TextIO) -> None:
    settings = read_settings(home)
    if engine == "spark":
        os.environ["PYSPARK_PYTHON"] = sys.executable  # as whoever opens a session of their own must say
        session, _ = open_session(address, settings.batch.spark)
    elif engine == "connect":
        os.environ["PYSPARK_PYTHON"] = sys.executable
        session, engine = connected(address), "spark"
    else:
        open_ray(address)
    for line in sys.stdin:
        asked: dict[str, Any] = json.loads(line)
        try:
            if "frame" in asked:
                options = {"home": home, "keep": asked["keep"]}
                on_spark = engine == "spark"
                path = asked["frame"]
                rows = frame_on_spark(session, path, options) if on_spark else frame_on_ray(path, options)
                answer: Any = {"rows": rows}
            else:
                asked["keep"] = tuple(asked.get("keep", ()))
                answer = run_batch(**asked, home=home, engine=engine)
        except FairwayError as error:
            answer = {"error": type(error).__name__, "text": str(error)}
        print(msgspec.json.encode(answer).decode(), file=answers, flush=True)


def connected(address: str) -> Any:
    from pyspark.sql import SparkSession

    return SparkSession.builder.remote(address).getOrCreate()


def frame_on_spark(session: Any, path: str, options: dict[str, Any]) -> list[dict[str, Any]]:
    import fairway.spark

    frame = session.createDataFrame(pq.read_table(path)).repartition(2)
    rows: list[dict[str, Any]] = fairway.spark.score(frame, "line", **options).toArrow().to_pylist()
    return rows


def frame_on_ray(path: str, options: dict[str, Any]) -> list[dict[str, Any]]:
    import ray

    import fairway.ray

    table: pa.Table = pq.read_table(path)
    halves = ray.data.from_arrow([table.slice(0, len(table) // 2), table.slice(len(table) // 2)])
    return list(fairway.ray.score(halves, "line", **options).take_all())


if __name__ == "__main__":
    with redirect_stdout(sys.stderr):
        main(*sys.argv[1:4], sys.__stdout__ or sys.stdout)
