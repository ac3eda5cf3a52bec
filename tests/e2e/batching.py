"""A batch run in a process of its own, to be killed: `python -m tests.e2e.batching RUN SOURCE OUTPUT [TABLE URL]`."""

import sys
import time
from pathlib import Path

from fairway.batch.run import Progress
from fairway.batch.sql import SqlSink, read_place
from fairway.core.columns import Columns, Outputs
from tests.batches import go
from tests.planes import Adding


class Slow(Adding):
    """Long enough in every call to be killed there too."""

    def predict(self, columns: Columns) -> Outputs:
        time.sleep(0.0005)
        return super().predict(columns)


def main() -> None:
    folder, source, output = map(Path, sys.argv[1:4])
    table = sys.argv[4] if len(sys.argv) > 4 else ""

    def tell(progress: Progress) -> None:
        if progress.event == "begin":
            print("begin", flush=True)

    options = {"chunk_bytes": 60, "part_rows": 40, "engine": Slow(), "tell": tell}
    if table:
        go(
            folder,
            source,
            output,
            sink=lambda run: SqlSink(read_place(table), "run", run),
            flat=True,
            **options,
        )
    else:
        go(folder, source, output, **options)


if __name__ == "__main__":
    main()
