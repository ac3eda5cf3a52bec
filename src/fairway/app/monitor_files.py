"""Dashboards and alert rules as files, made from the metrics and error codes that this version has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from fairway.core import errors
from fairway.core.errors import FairwayError, StorageFull
from fairway.monitoring.grafana import dashboards
from fairway.monitoring.prometheus_rules import rules_yaml
from fairway.serving.errors import status_of
from fairway.serving.metrics import described_metrics

_FAULTS = (500, 502, 503, 504, 507)
"""Answers that mean the server failed; 501 means that the caller asked for something it does not do."""


def server_codes() -> list[str]:
    """The error codes that are the server's fault: by how HTTP answers them. `internal_error` is what
    nobody expected."""
    return sorted({"internal_error", *(error.code for error in _errors() if status_of(error("")) in _FAULTS)})


def prometheus_rules(job: str) -> str:
    return rules_yaml(described_metrics(), server_codes(), job)


def write_dashboards(folder: Path) -> list[Path]:
    """Writes a file for each dashboard; the folder is made. StorageFull when it cannot be written."""
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, dashboard in dashboards(described_metrics(), server_codes()).items():
            path = folder / name
            path.write_bytes(msgspec.json.format(msgspec.json.encode(dashboard), indent=2) + b"\n")
            written.append(path)
    except OSError as error:
        raise StorageFull(
            f"{folder} cannot be written: {error.strerror}.", hint="Choose another folder."
        ) from error
    return written


def _errors() -> Iterator[type[FairwayError]]:
    for value in vars(errors).values():
        if isinstance(value, type) and issubclass(value, FairwayError):
            yield value
