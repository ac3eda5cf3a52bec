"""Writes benchmarks/estimate/RESULTS.md.

python -m benchmarks.estimate --nannyml /path/to/venv/bin/python     both tables; NannyML lives in its own environment
python -m benchmarks.estimate --windows 500                          how often intervals cover, alone
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from benchmarks.estimate import car_loans, coverage, estimated

HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.estimate", description=__doc__)
    parser.add_argument("--nannyml", type=Path, help="Python of an environment with nannyml")
    parser.add_argument("--windows", type=int, default=1_000, help="drawn for each size; 0: none")
    given = parser.parse_args()
    lines = ["# Estimates and intervals", ""]
    if given.nannyml:
        lines += ["## Mean absolute error on NannyML's synthetic car loans, ten chunks of 5,000", ""]
        with tempfile.TemporaryDirectory(prefix="fairway-bench-") as folder:
            lines += [*car_loans.compare(given.nannyml, Path(folder)), ""]
    if given.windows:
        lines += [
            f"## Of 100 intervals that say 95%, so many hold the truth ({given.windows:,} windows of each size)",
            "",
            "A star: some windows have no such metric or interval (nothing predicted positive, too few of a class), and are not "
            "counted; a dash: fewer than one in ten has one.",
            "",
            *coverage.table(given.windows),
            "",
            f"## Of 100 intervals of estimates, so many hold what the labels then say ({given.windows // 10:,} references of "
            f"{estimated.REFERENCE_ROWS:,} rows, {estimated.PER_REFERENCE} windows of each size for each)",
            "",
            *estimated.table(given.windows // 10),
            "",
        ]
    text = "\n".join(lines)
    print(text)
    (HERE / "RESULTS.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
