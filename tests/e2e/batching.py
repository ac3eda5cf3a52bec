"""A batch run in a process of its own, to be killed."""

import multiprocessing
import time
from pathlib import Path
from typing import Any

from fairway.batch.run import Progress
from fairway.batch.sql import SqlSink, read_place
from fairway.core.columns import Columns, Outputs
from tests.batches import go
from tests.planes import Adding

forks = multiprocessing.get_context("forkserver")
forks.set_forkserver_preload([__name__])


class Slow(Adding):
    """Long enough in every call to be killed there too."""

    def predict(self, columns: Columns) -> Outputs:
        time.sleep(0.0005)
        return super().predict(columns)


def work(folder: Path, source: Path, output: Path, table: str, begun: Any) -> None:
    """Begins the run in `folder`, or goes on with it; to `output`, or to the URL `table`. Sets `begun` when it reads."""

    def tell(progress: Progress) -> None:
        if progress.event == "begin":
            begun.set()

    options: dict[str, Any] = {"chunk_bytes": 60, "part_rows": 40, "engine": Slow(), "tell": tell}
    if table:
        go(
            folder,
            source,
            output,
            sink=lambda run: SqlSink(read_place(table), folder.name, run),
            flat=True,
            **options,
        )
    else:
        go(folder, source, output, **options)
