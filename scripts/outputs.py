"""Writes into a page what its commands print: for `console` blocks, below each `$ ` line.

    python -m scripts.outputs README.md docs/guides/serve.md

Long output is cut after LINES lines, long lines after WIDTH characters. Blocks marked `not-run` or `silent` are left as they are.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

from tests.documents import FENCE, Reader, Step, commands, steps

LINES = 14
WIDTH = 240


def with_outputs(page: str, reader: Reader) -> str:
    """The page with the output of every command in its console blocks, which are run in order."""
    pieces, at = [], 0
    for fence in FENCE.finditer(page):
        indent, language, options, body = fence.groups()
        pieces.append(page[at : fence.start()])
        at = fence.end()
        block = fence.group()
        if language == "console" and "not-run" not in options:
            told = _run_block(body, options, reader)
            if "silent" not in options:
                block = f"{indent}```{language}{options}\n{told}{indent}```"
        else:
            for step in steps(block):
                reader.take(step)
        pieces.append(block)
    return "".join([*pieces, page[at:]])


def _run_block(body: str, options: str, reader: Reader) -> str:
    code = re.search(r"exit=(\d+)", options)
    found = [command for _, command in commands(body)]
    told = []
    for i, command in enumerate(found):
        wanted = int(code[1]) if code and i == len(found) - 1 else 0
        lines = [line.rstrip() for line in reader.take(Step("sh", command, i, exit_code=wanted)).splitlines()]
        lines = [line if len(line) <= WIDTH else line[: WIDTH - 4] + " ..." for line in lines]
        if len(lines) > LINES:
            lines = [*lines[: LINES - 1], "..."]
        told += [f"$ {command}", *lines]
    return "\n".join(told) + "\n"


def main(names: list[str]) -> None:
    for name in names:
        path = Path(name)
        with tempfile.TemporaryDirectory() as folder:
            reader = Reader(Path(folder))
            try:
                text = with_outputs(path.read_text(encoding="utf-8"), reader)
            finally:
                reader.close()
        path.write_text(text, encoding="utf-8")
        print(name)


if __name__ == "__main__":
    main(sys.argv[1:])
