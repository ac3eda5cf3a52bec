"""`python -m benchmarks.drift run TOOL` and `report FILES`."""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections import defaultdict
from importlib import import_module
from pathlib import Path

from benchmarks.drift.scenarios import CHANGED, REFERENCE_ROWS, SCENARIOS, SIZES, pair

TOOLS = ("fairway", "evidently", "nannyml", "alibi_detect", "frouros")


def run(arguments: argparse.Namespace) -> None:
    """Appends one line for each scenario and size: how often any alarm was raised, and how often the right one."""
    tool = import_module(f"benchmarks.drift.tools.{arguments.tool}")
    with Path(arguments.out).open("a", encoding="utf-8") as out:
        for scenario in arguments.scenarios:
            for size in arguments.sizes:
                repetitions = arguments.repetitions
                any_alarm = right = 0
                begun = time.perf_counter()
                for repetition in range(arguments.first, arguments.first + repetitions):
                    columns, together = tool.alarms(
                        *pair(scenario, size, repetition, arguments.reference_rows or size)
                    )
                    any_alarm += bool(columns) or together
                    changed = CHANGED.get(scenario, "n0")
                    right += (changed in columns) if changed else bool(columns) or together
                line = {
                    "tool": arguments.tool, "version": tool.version(), "scenario": scenario, "rows": size,
                    "repetitions": repetitions, "any": any_alarm, "right": right,
                    "reference": arguments.reference_rows, "seconds": round((time.perf_counter() - begun) / repetitions, 4),
                }  # fmt: skip
                out.write(json.dumps(line) + "\n")
                out.flush()
                print(line, file=sys.stderr)


def report(arguments: argparse.Namespace) -> None:
    """Markdown: false alarms by size, power by scenario and size, each with its number of repetitions."""
    found: dict[tuple[str, str, int, int], dict[str, int]] = defaultdict(lambda: defaultdict(int))
    versions = {}
    for path in arguments.files:
        for text in Path(path).read_text(encoding="utf-8").splitlines():
            line = json.loads(text)
            cell = found[line["tool"], line["scenario"], line["rows"], line["reference"]]
            for name in ("repetitions", "any", "right"):
                cell[name] += line[name]
            versions[line["tool"]] = line["version"]
    tools = [tool for tool in TOOLS if tool in versions]
    for reference, told in ((REFERENCE_ROWS, f"of {REFERENCE_ROWS:,} rows"), (0, "as large as the window")):
        print(
            f"Windows without drift in which any alarm was raised, of 15 columns, against a reference {told} (95% interval, windows):\n"
        )
        rows = [[found.get((tool, "none", size, reference)) for tool in tools] for size in SIZES]
        _table("rows", [f"{size:,}" for size in SIZES], tools, versions, rows, "any", interval=True)
        print()
    print(f"Windows in which the drift that there was, was named, against {REFERENCE_ROWS:,} rows:\n")
    keys = [(s, n) for s in SCENARIOS if s != "none" for n in SIZES
            if any((t, s, n, REFERENCE_ROWS) in found for t in tools)]  # fmt: skip
    rows = [[found.get((tool, s, n, REFERENCE_ROWS)) for tool in tools] for s, n in keys]
    _table("drift, rows", [f"{SCENARIOS[s][0]}, {n:,}" for s, n in keys], tools, versions, rows, "right")


def _table(
    heading: str,
    names: list[str],
    tools: list[str],
    versions: dict[str, str],
    cells: list[list[dict[str, int] | None]],
    what: str,
    interval: bool = False,
) -> None:
    print(
        f"| {heading} | " + " | ".join(f"{tool.replace('_', '-')} {versions[tool]}" for tool in tools) + " |"
    )
    print("|" + "---|" * (len(tools) + 1))
    for name, line in zip(names, cells, strict=True):
        print(f"| {name} | " + " | ".join(_cell(cell, what, interval) for cell in line) + " |")


def _cell(cell: dict[str, int] | None, what: str, interval: bool) -> str:
    if not cell:
        return ""
    rate, n = cell[what] / cell["repetitions"], cell["repetitions"]
    if not interval:
        return f"{rate:.2f}"
    middle = (rate + 1.92 / n) / (1 + 3.84 / n)  # Wilson
    half = 1.96 * math.sqrt(rate * (1 - rate) / n + 0.96 / n**2) / (1 + 3.84 / n)
    return f"{rate:.1%} ({max(middle - half, 0):.1%}-{middle + half:.1%}, {n})"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.drift")
    verbs = parser.add_subparsers(required=True)
    running = verbs.add_parser("run")
    running.add_argument("tool", choices=TOOLS)
    running.add_argument("--out", required=True)
    running.add_argument("--scenarios", nargs="+", default=list(SCENARIOS), choices=list(SCENARIOS))
    running.add_argument("--sizes", nargs="+", type=int, default=list(SIZES))
    running.add_argument("--repetitions", type=int, default=400)
    running.add_argument("--first", type=int, default=0)
    running.add_argument(
        "--reference-rows", type=int, default=REFERENCE_ROWS, help="0: as many as the window has."
    )
    running.set_defaults(act=run)
    reporting = verbs.add_parser("report")
    reporting.add_argument("files", nargs="+")
    reporting.set_defaults(act=report)
    arguments = parser.parse_args()
    arguments.act(arguments)


if __name__ == "__main__":
    main()
