"""`fairway monitor grafana|rules`: files for Grafana and Prometheus."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fairway.app.monitor_files import prometheus_rules, write_dashboards
from fairway.cli.options import JsonOption
from fairway.cli.output import print_json, print_line

app = typer.Typer(add_completion=False)


@app.command(epilog="Example:  fairway monitor grafana --output /etc/grafana/dashboards")
def grafana(
    output: Annotated[Path, typer.Option("--output", metavar="DIR", help="Where the files go.")] = Path(),
    json: JsonOption = False,
) -> None:
    """Write dashboards for Grafana 10 and newer, over a Prometheus that scrapes the servers. Import or provision them."""
    files = write_dashboards(output)
    if json:
        print_json([str(path) for path in files])
        return
    for path in files:
        print_line(str(path))


@app.command(epilog="Example:  fairway monitor rules > /etc/prometheus/rules/fairway.yml")
def rules(
    job: Annotated[
        str, typer.Option("--job", metavar="NAME", help="What the scrape job is called in prometheus.yml.")
    ] = "fairway",
) -> None:
    """Print alert rules for Prometheus: servers that fail, are slow, or are gone."""
    print_line(prometheus_rules(job).rstrip("\n"))
