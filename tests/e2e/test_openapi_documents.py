"""Schemathesis sends what /openapi.json allows, and what it does not, to a running server."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.servers import Server, serving

pytestmark = pytest.mark.e2e
SCHEMATHESIS = str(Path(sys.executable).with_name("schemathesis"))


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[Server]:
    with serving(home) as running:
        yield running


def fuzz(server: Server, document: dict[str, Any], folder: Path, *options: str) -> None:
    file = folder / "openapi.json"
    file.write_text(json.dumps(document))
    command = [
        SCHEMATHESIS,
        "run",
        str(file),
        "--url",
        f"http://{server.address}",
        "--no-color",
        "--seed",
        "1",
    ]
    command += [
        "--phases",
        "examples,coverage,fuzzing",
        "--generation-database",
        "none",
        "--continue-on-failure",
    ]
    done = subprocess.run(
        [*command, *options], cwd=folder, capture_output=True, text=True, timeout=150, check=False
    )
    assert done.returncode == 0, done.stdout[-6000:]
    assert "No issues found" in done.stdout


def document(server: Server, *, rows_alone: bool) -> dict[str, Any]:
    """The server's document with JSON bodies alone: the fuzzer writes no other."""
    told: dict[str, Any] = json.loads(server.ask("GET", "/openapi.json")[2])
    for operations in told["paths"].values():
        if "post" in operations:
            content = operations["post"]["requestBody"]["content"]
            body = content["application/json"]
            if rows_alone:
                body["schema"] = body["schema"]["oneOf"][0]
                del body["examples"]["v2"]
            operations["post"]["requestBody"]["content"] = {"application/json": body}
    return told


def test_whatever_is_sent_the_answer_is_as_described(server: Server, tmp_path: Path) -> None:
    checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
    fuzz(server, document(server, rows_alone=False), tmp_path, "-n", "15", "--checks", checks)


def test_rows_are_taken_just_when_they_fit_the_document(server: Server, tmp_path: Path) -> None:
    """V2's tensors are left out: no schema says that `data` has as many values as `shape` needs."""
    fuzz(server, document(server, rows_alone=True), tmp_path, "-n", "20")
