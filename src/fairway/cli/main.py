"""`fairway VERB`: finds the verb's module when it is used, and turns errors into messages and exit codes."""

from __future__ import annotations

import sys
from typing import Any

import click
import msgspec
import typer
from typer.exceptions import TyperException

from fairway.cli.verbs import Verbs
from fairway.core.errors import (
    ArtifactError,
    Conflict,
    FairwayError,
    InvalidInput,
    MissingExtra,
    NotFound,
    Unavailable,
)
from fairway.core.release import VERSION

VERBS: dict[str, tuple[str, str]] = {
    "deploy": ("fairway.cli.deploy", "Package a model, register it and give it the traffic."),
    "package": ("fairway.cli.package", "Make a bundle from a model and sample data, without registering it."),
    "register": ("fairway.cli.register", "Register a bundle as the next version of a model."),
    "serve": ("fairway.cli.serve", "Serve models over HTTP and gRPC."),
    "sagemaker-serve": ("fairway.cli.sagemaker_serve", "Serve a bundle by SageMaker's container contract."),
    "predict": ("fairway.cli.predict", "Predict the rows of a file, here or on a running server."),
    "control": ("fairway.cli.control", "Run schedules, pages and the admin API."),
    "schedules": ("fairway.cli.schedules", "What runs again and again: list, pause, run now, history."),
    "batch": ("fairway.cli.batch", "Score all rows of files or tables."),
    "precompute": ("fairway.cli.precompute", "Compute answers ahead, stored by key."),
    "answers": ("fairway.cli.answers", "Look up and delete precomputed answers."),
    "feedback": ("fairway.cli.feedback", "Tell what became of predictions: labels from a file."),
    "log": ("fairway.cli.log", "Ask, watch and look after the prediction log."),
    "bench": ("fairway.cli.bench", "Measure how quickly a server answers."),
    "drift": ("fairway.cli.drift", "Compare data with a reference: what has changed?"),
    "stream": ("fairway.cli.stream", "Look at values as they come: when do they change?"),
    "estimate": ("fairway.cli.estimate", "Estimate how well a model does before labels come."),
    "models": ("fairway.cli.models", "List the models."),
    "show": ("fairway.cli.show", "Show a model, a version, its proof."),
    "history": ("fairway.cli.history", "Who changed what, when and why."),
    "route": ("fairway.cli.route", "Show or change which versions take the traffic."),
    "rollback": ("fairway.cli.rollback", "Give the traffic back to the version before."),
    "alias": ("fairway.cli.alias", "Point an alias such as champion to a version."),
    "keys": ("fairway.cli.keys", "Make, list and revoke API keys."),
    "contract": ("fairway.cli.contract", "Show, edit or check a model's data contract."),
    "incidents": ("fairway.cli.incidents", "What is wrong with the models, and what is done about it."),
    "alerts": ("fairway.cli.alerts", "Where incidents are told, and what still waits to be."),
    "monitor": (
        "fairway.cli.monitor",
        "What monitors saw of each model: windows, reports; files for Grafana.",
    ),
    "environments": ("fairway.cli.environments", "List and mend the environments that Python models run in."),
    "doctor": ("fairway.cli.doctor", "Check this machine, naming the command that mends each finding."),
}

EXIT_CODES: tuple[tuple[type[FairwayError], int], ...] = (
    (NotFound, 3),
    (InvalidInput, 4),
    (ArtifactError, 5),
    (Conflict, 6),
    (Unavailable, 7),
    (MissingExtra, 8),
)
"""0 done, 1 a check found something or anything else failed, 2 wrong usage, then these."""


@click.command(
    cls=Verbs,
    table=VERBS,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example:  fairway deploy model.joblib --data train.parquet --target is_fraud --name payments",
)
@click.version_option(VERSION, prog_name="fairway")
def cli() -> None:
    """From a trained model to production: package with proof, serve, watch, roll back."""


def exit_code(error: FairwayError) -> int:
    return next((code for kind, code in EXIT_CODES if isinstance(error, kind)), 1)


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the `fairway` command."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        result: Any = cli.main(args=arguments, prog_name="fairway", standalone_mode=False)
    except FairwayError as error:
        _say(error, as_json="--json" in arguments)
        sys.exit(exit_code(error))
    except typer.Exit as ended:
        sys.exit(ended.exit_code)
    except (click.exceptions.Abort, typer.Abort):
        sys.exit(130)
    except (click.ClickException, TyperException) as error:  # typer brings a click of its own
        error.show() if hasattr(error, "show") else sys.stderr.write(f"Error: {error}\n")
        sys.exit(error.exit_code)
    sys.exit(result if isinstance(result, int) else 0)


def _say(error: FairwayError, *, as_json: bool) -> None:
    problems = error.problems if isinstance(error, InvalidInput) else ()
    if as_json:
        body = {"error": str(error), "code": error.code, "problems": problems}
        sys.stderr.write(msgspec.json.encode(body).decode() + "\n")
        return
    sys.stderr.write(f"error: {error}\n")
    if len(problems) == 1 and problems[0].row is None and str(error).endswith(problems[0].reason):
        problems = ()  # the message has said it
    for problem in problems[:20]:
        where = " ".join(
            part
            for part in (
                problem.field or "",
                f"row {problem.row}" if problem.row is not None else "",
            )
            if part
        )
        sys.stderr.write(f"  {where + ': ' if where else ''}{problem.reason}\n")
    if len(problems) > 20:
        sys.stderr.write(f"  ... and {len(problems) - 20} more\n")


if __name__ == "__main__":
    main()
