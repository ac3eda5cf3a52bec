"""`fairway contract show|edit|check`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import click
import typer

from fairway.app.home import Home, open_home
from fairway.app.live import make_live, register_bundle
from fairway.cli.options import HomeOption, JsonOption, ReferenceArgument, WhyOption
from fairway.cli.output import print_json, print_line, print_table
from fairway.core.contract import Contract
from fairway.core.errors import InvalidInput, NotFound
from fairway.core.request import Inputs
from fairway.core.version import ModelVersion, parse_reference
from fairway.inference.check_rows import Check, check_rows
from fairway.inference.rows import from_csv
from fairway.packaging.amend import amend_contract, read_profile
from fairway.packaging.bundle import Bundle, read_bundle
from fairway.packaging.contract import sample_arrays
from fairway.packaging.contract_text import contract_from_text, contract_to_text
from fairway.packaging.rules import set_rule
from fairway.packaging.sample import read_sample

app = typer.Typer(add_completion=False, help="Show, edit or check a model's data contract.")
_SHOWN_PROBLEMS = 20
_ALL_ROWS = 2**62


@app.command(epilog="Example:  fairway contract show payments > contract.toml")
def show(model: ReferenceArgument, home: HomeOption = None, json: JsonOption = False) -> None:
    """Show the contract as TOML, which `edit --file` and `deploy --contract` take."""
    with open_home(home) as place:
        contract = _open(place, model)[1].contract
    if json:
        print_json(contract)
    else:
        print_line(contract_to_text(contract).rstrip("\n"))


@app.command(epilog="Example:  fairway contract edit payments --set amount.on_null=impute:median")
def edit(
    model: ReferenceArgument,
    file: Annotated[
        str | None,
        typer.Option("--file", help="The edited contract; without it $EDITOR opens.", metavar="FILE"),
    ] = None,
    rules: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Change one rule; the action is reject, warn, clip, or impute[:mean|:median|:mode|:VALUE].",
            metavar="FIELD.RULE=ACTION",
        ),
    ] = None,
    live: Annotated[
        bool, typer.Option("--live", help="Give the new version all the traffic at once.")
    ] = False,
    why: WhyOption = "contract edited",
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Change the contract. Versions never change: this registers a new one with the same model."""
    with open_home(home) as place, tempfile.TemporaryDirectory(prefix="fairway-") as scratch:
        before, bundle = _open(place, model)
        contract = _edited(bundle, before, file, rules or [])
        amended = amend_contract(bundle, contract, Path(scratch) / "bundle")
        version = register_bundle(place, before.model, amended, why=why)
        if live:
            make_live(place, version, why=why)
    if json:
        print_json(version)
        return
    state = "is live" if live else "registered"
    print_line(
        f"{version.model}:{version.version} {state}: {version.model}:{before.version} with the edited contract"
    )
    if not live:
        print_line(f"Give it the traffic:  fairway route {version.model} --to {version.version}")


@app.command(epilog="Example:  fairway contract check payments rows.csv")
def check(
    model: ReferenceArgument,
    rows: Annotated[str, typer.Argument(metavar="FILE", help="CSV, Parquet, Arrow or JSON Lines.")],
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Say what the contract would do to the rows of a file. Exit code 1 if any row would be refused."""
    with open_home(home) as place:
        contract = _open(place, model)[1].contract
    found = check_rows(contract, _inputs(rows, contract))
    if json:
        print_json(found)
    else:
        _report(found)
    if found.refused:
        raise typer.Exit(1)


def _open(place: Home, model: str) -> tuple[ModelVersion, Bundle]:
    version = place.registry.resolve(parse_reference(model))
    return version, read_bundle(place.registry.fetch(version))


def _edited(bundle: Bundle, version: ModelVersion, file: str | None, rules: list[str]) -> Contract:
    profile = read_profile(bundle)
    contract = bundle.contract
    if file is not None:
        contract = contract_from_text(_read_text(file), profile)
    elif not rules:
        text = click.edit(contract_to_text(contract), extension=".toml")
        if text is None:
            raise InvalidInput("The editor was left without saving: nothing was changed.")
        try:
            contract = contract_from_text(text, profile)
        except InvalidInput as error:
            raise InvalidInput(f"{error}\n{_kept(text, version)}", error.problems) from error
    for change in rules:
        contract = set_rule(contract, change, profile)
    return contract


def _kept(text: str, version: ModelVersion) -> str:
    """Nobody types a contract twice."""
    with tempfile.NamedTemporaryFile(
        "w", prefix="contract-", suffix=".toml", delete=False, encoding="utf-8"
    ) as kept:
        kept.write(text)
    return f"Your text is kept: fairway contract edit {version.model}:{version.version} --file {kept.name}"


def _read_text(file: str) -> str:
    try:
        return Path(file).read_text(encoding="utf-8")
    except OSError as error:
        raise NotFound(f"{file} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{file} is not UTF-8 text: {error}.") from error


def _inputs(rows: str, contract: Contract) -> Inputs:
    if not rows.endswith(".csv"):
        return sample_arrays(read_sample(rows, rows=_ALL_ROWS))
    try:
        return from_csv(Path(rows).read_bytes(), contract)
    except OSError as error:
        raise NotFound(f"{rows} cannot be read: {error.strerror}.") from error


def _report(found: Check) -> None:
    if found.findings:
        print_table(
            ("field", "rule", "rows", "action"),
            [(finding.field, finding.rule, finding.rows, finding.action) for finding in found.findings],
        )
    for problem in found.problems[:_SHOWN_PROBLEMS]:
        where = "" if problem.row is None else f" row {problem.row}"
        print_line(f"  {problem.field or ''}{where}: {problem.reason}")
    if len(found.problems) > _SHOWN_PROBLEMS:
        print_line(f"  ... and {len(found.problems) - _SHOWN_PROBLEMS} more")
    print_line(f"{found.rows} rows, {found.refused} would be refused")
