"""Writes the reference pages that come from the code, and checks the links of every Markdown file.

python -m scripts.docs            write docs/reference/{errors,cli,settings,python}.md and the figures of the README, check links
python -m scripts.docs --check    change nothing; exit 1 if a page is out of date or a link is broken
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import cast

import click
import typer.core

from benchmarks.results import sections_of
from fairway.cli.main import cli
from fairway.core import errors
from fairway.serving.errors import status_of
from scripts.python_page import python_page
from scripts.settings_page import settings_page

ROOT = Path(__file__).parent.parent
GENERATED = "<!-- Written by `make docs` from the code; edit there. -->"
FIGURES = "<!-- Written by `make docs` from benchmarks/RESULTS.md. -->"
FIGURES_END = "<!-- To here. -->"
PEERS = {
    "bare ASGI": "a bare ASGI callable that checks and records nothing",
    "Triton": "Triton 2.51 (Python backend)",
    "MLServer": "MLServer 1.7.1",
    "BentoML": "BentoML 1.4.39",
}
LIBRARY = (
    "native pipeline, one-row DataFrame",
    "fairway.load().predict, the same DataFrame",
    "fairway.load().predict, a dict",
)
_TREE_LINE = re.compile(r"[│├└─ ]*(\w+)(?:\s{2,}(.+))?$")
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_CODE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def error_classes() -> Iterator[type[errors.FairwayError]]:
    """Every error a user can meet, parents before children, in the order of the file."""
    for value in vars(errors).values():
        if inspect.isclass(value) and issubclass(value, errors.FairwayError):
            yield value


def meanings() -> dict[str, str]:
    """Class name -> what it means, from the tree in the module's docstring."""
    lines = (errors.__doc__ or "").splitlines()
    found = (_TREE_LINE.match(line) for line in lines[1:])
    return {match[1]: (match[2] or "") for match in found if match}


def errors_page() -> str:
    meaning = meanings()
    rows = [
        f"| `{kind.code}` | `{kind.__name__}` | `{kind.__bases__[0].__name__}` | "
        f"{status_of(kind('')).value} | {meaning.get(kind.__name__, '')} |"
        for kind in error_classes()
        if kind is not errors.FairwayError
    ]
    return "\n".join(
        [
            GENERATED,
            "# Errors",
            "",
            "Every error Fairway raises on purpose is a subclass of `fairway.core.errors.FairwayError`. Its `code`",
            "is part of the public surface: it stands in HTTP answers, in `--json` output and in the log. Over HTTP",
            'an error is `{"error", "code", "request_id", "problems": [{"field", "row", "reason"}]}`.',
            "",
            "| code | class | is a | HTTP | meaning |",
            "|---|---|---|---|---|",
            *rows,
            "",
        ]
    )


def cli_page() -> str:
    lines = [GENERATED, "# Commands", ""]
    for path, command in _commands(cli, "fairway"):
        lines += [f"## `{path}`", "", inspect.cleandoc(command.help or ""), ""]
        rows = [
            _parameter(parameter) for parameter in command.params if not getattr(parameter, "hidden", False)
        ]
        if rows:
            lines += ["| parameter | meaning | default |", "|---|---|---|", *rows, ""]
    return "\n".join(lines).rstrip() + "\n"


def _commands(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    if not isinstance(command, click.Group | typer.core.TyperGroup):
        yield path, command
        return
    context = click.Context(cast(click.Command, command))
    for name in command.list_commands(context):
        child = command.get_command(context, name)
        if child is not None and not child.hidden:
            yield from _commands(child, f"{path} {name}")


def _parameter(parameter: click.Parameter) -> str:
    if parameter.param_type_name == "argument":
        name = (parameter.metavar or parameter.name or "").upper()
    else:
        name = ", ".join([*parameter.opts, *parameter.secondary_opts])
    default = parameter.default
    shown = f"`{default}`" if default not in (None, False, (), "") and not callable(default) else ""
    meaning = " ".join((getattr(parameter, "help", "") or "").split()).replace("|", "\\|")
    return f"| `{name}` | {meaning} | {shown} |"


def readme_page() -> str:
    """The README with the figures that were measured last."""
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    measured = sections_of((ROOT / "benchmarks" / "RESULTS.md").read_text(encoding="utf-8"))
    head, begin, rest = page.partition(FIGURES)
    _, end, tail = rest.partition(FIGURES_END)
    if not begin or not end:
        raise ValueError(f"the README has no {FIGURES} ... {FIGURES_END}")
    return head + begin + "\n" + figures(measured) + end + tail


def figures(measured: Mapping[str, str]) -> str:
    """The README's table of ratios, and what stands below it, from the sections of RESULTS.md."""
    serving, grpc = measured["Serving"], measured["gRPC"]
    rows = [
        f"| {name} | {_ratio(serving, peer, 2)} | {_ratio(serving, peer, 4)} | {_ratio(serving, peer, 1)} "
        f"| {_ratio(grpc, peer, 1)} |"
        for peer, name in PEERS.items()
    ]
    native, frame, plain = (_cells(measured["Library"], name)[1] for name in LIBRARY)
    return "\n".join(
        [
            "| Fairway against | requests/s, 1 row, 32 connections | requests/s, 64 rows | p50, one connection (less is better) "
            "| gRPC calls/s, 1 row |",
            "|---|---|---|---|---|",
            *rows,
            "",
            f"A scikit-learn pipeline on mixed columns, one row: {_milliseconds(native)} natively, "
            f"{_milliseconds(frame)} through",
            f"`fairway.load().predict` on the same DataFrame, {_milliseconds(plain)} on a dict.",
            "",
        ]
    )


def _cells(section: str, first: str) -> list[str]:
    """The cells of the row that begins with `first`; none where there is no such row."""
    rows = (
        [cell.strip() for cell in line.strip("| ").split("|")]
        for line in section.splitlines()
        if line.startswith("|")
    )
    return next((row for row in rows if row[0] == first), [])


def _ratio(section: str, peer: str, column: int) -> str:
    row = _cells(section, f"Fairway / {peer}")
    return f"{float(row[column]):.2g}x" if len(row) > column and row[column] else ""


def _milliseconds(microseconds: str) -> str:
    return f"{float(microseconds.removesuffix(' us').replace(',', '')) / 1000:.2g} ms"


PAGES = {
    "docs/reference/errors.md": errors_page,
    "docs/reference/cli.md": cli_page,
    "docs/reference/settings.md": lambda: f"{GENERATED}\n{settings_page()}",
    "docs/reference/python.md": lambda: f"{GENERATED}\n{python_page()}",
    "README.md": readme_page,
}


def markdown_files() -> list[Path]:
    folders = [ROOT / "docs", ROOT / "examples", ROOT / "benchmarks"]
    return [
        *sorted(ROOT.glob("*.md")),
        *(path for folder in folders for path in sorted(folder.rglob("*.md"))),
    ]


def broken_links() -> list[str]:
    """Relative links whose file is not there."""
    broken = []
    for page in markdown_files():
        for target in _LINK.findall(_CODE.sub("", page.read_text(encoding="utf-8"))):
            path = target.partition("#")[0]
            if path and "://" not in path and not (page.parent / path).exists():
                broken.append(f"{page.relative_to(ROOT)}: {target}")
    return broken


def main() -> int:
    check = "--check" in sys.argv[1:]
    faults = [f"broken link in {link}" for link in broken_links()] if check else []
    for name, page in PAGES.items():
        path, text = ROOT / name, page()
        if check:
            if not path.exists() or path.read_text(encoding="utf-8") != text:
                faults.append(f"{name} is out of date: run `make docs`")
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            print(name)
    if not check:
        faults += [f"broken link in {link}" for link in broken_links()]
    for fault in faults:
        print(fault, file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
