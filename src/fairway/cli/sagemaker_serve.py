"""`fairway sagemaker-serve`, and the `serve` command that SageMaker starts in a container."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from fairway.app.sagemaker import container_settings, container_snapshot
from fairway.app.settings import read_settings
from fairway.cli.main import main as fairway
from fairway.cli.options import HomeOption, JsonOption
from fairway.serving.logs import set_up_logging
from fairway.serving.supervisor import Supervisor

MODEL_FOLDER = Path("/opt/ml/model")
app = typer.Typer(add_completion=False)


@app.command(epilog="Example:  fairway sagemaker-serve   (in a container: docker run IMAGE serve)")
def run(
    folder: Annotated[
        Path, typer.Option("--model-folder", help="Where SageMaker unpacked model.tar.gz.")
    ] = MODEL_FOLDER,
    name: Annotated[str, typer.Option("--name", help="Name of the model, on paths that name one.")] = "model",
    many: Annotated[
        bool,
        typer.Option("--many", help="Start without a model: SageMaker loads them (multi-model endpoint)."),
    ] = False,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Serve one bundle, or many, by SageMaker's container contract on port 8080.

    SAGEMAKER_BIND_TO_PORT, SAGEMAKER_MODEL_SERVER_WORKERS, SAGEMAKER_MULTI_MODEL and the variables of batch transform
    are followed.
    """
    settings = container_settings(read_settings(home))
    set_up_logging(settings.telemetry, "supervisor")
    many = many or os.environ.get("SAGEMAKER_MULTI_MODEL", "").lower() in ("true", "1")
    snapshot = container_snapshot(settings, folder, name, many=many)

    def ready(bound: int, grpc_bound: int | None = None) -> None:
        address = f"http://{settings.serving.host}:{bound}"
        told = {"ready": True, "address": address, "models": [model.route.model for model in snapshot.models]}
        line = msgspec.json.encode(told).decode() if json else f"ready  {address}  /ping  /invocations"
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    Supervisor(settings, snapshot, ready).run()


def main() -> None:
    """Entry point of the `serve` command."""
    fairway(["sagemaker-serve", *sys.argv[1:]])


if __name__ == "__main__":
    main()
