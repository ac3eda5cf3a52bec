"""`fairway bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fairway.bench.address import read_address
from fairway.bench.page import page
from fairway.bench.payload import Wish, prepare
from fairway.bench.plan import Plan
from fairway.bench.plot import plots
from fairway.bench.report import Latencies, Report, make_report
from fairway.bench.run import run as drive
from fairway.bench.schedule import Arrivals
from fairway.bench.server import connect, try_once
from fairway.cli.options import JsonOption
from fairway.cli.output import print_json, print_line, print_table, seconds_text
from fairway.cli.progress import progress_bar
from fairway.core.errors import InvalidInput, StorageFull

app = typer.Typer(add_completion=False)
_OPEN_CONNECTIONS = 64
_CLOSED_CONNECTIONS = 32


@app.command(epilog="Example:  fairway bench http://127.0.0.1:8080 --model payments --rate 1000 --seconds 30")
def run(
    url: Annotated[
        str,
        typer.Argument(
            metavar="URL", help="http(s)://HOST:PORT, with a model's path or any other; or grpc://HOST:PORT."
        ),
    ],
    model: Annotated[
        str,
        typer.Option("--model", metavar="NAME[:VERSION]", help="The model; the only one if there is one."),
    ] = "",
    rate: Annotated[
        float | None,
        typer.Option("--rate", min=0.001, help="Open loop: requests a second, whatever the answers."),
    ] = None,
    arrivals: Annotated[
        Arrivals, typer.Option("--arrivals", help="Spacing of the open loop's requests.")
    ] = Arrivals.fixed,
    connections: Annotated[
        int | None,
        typer.Option("--connections", min=1, max=10_000, help="Connections.  [default: 32; 64 with --rate]"),
    ] = None,
    seconds: Annotated[float, typer.Option("--seconds", min=0.1, help="How long to measure.")] = 10.0,
    warmup: Annotated[float, typer.Option("--warmup", min=0, help="Seconds of load before that.")] = 2.0,
    rows: Annotated[int | None, typer.Option("--rows", min=1, help="Rows in each request.")] = None,
    data: Annotated[
        str, typer.Option("--data", metavar="FILE", help="Rows to send: CSV, Parquet, Arrow, JSON Lines.")
    ] = "",
    body: Annotated[str, typer.Option("--body", metavar="FILE", help="A whole request body to send.")] = "",
    content_type: Annotated[
        str, typer.Option("--content-type", help="That of --body.  [default: by its name, else JSON]")
    ] = "",
    binary: Annotated[bool, typer.Option("--binary", help="V2 binary tensors instead of JSON.")] = False,
    key: Annotated[str, typer.Option("--key", help="API key.", envvar="FAIRWAY_KEY", show_envvar=True)] = "",
    header: Annotated[
        list[str] | None, typer.Option("--header", metavar="NAME:VALUE", help="Sent along; repeat for more.")
    ] = None,
    ca_file: Annotated[
        str, typer.Option("--ca-file", metavar="FILE", help="Certificates that verify the server.")
    ] = "",
    timeout: Annotated[
        float, typer.Option("--timeout", min=0.001, help="Seconds until a request is given up.")
    ] = 10.0,
    processes: Annotated[int, typer.Option("--processes", min=1, max=256, help="Client processes.")] = 1,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of Poisson arrivals.")] = 0,
    html: Annotated[
        str, typer.Option("--html", metavar="FILE", help="Write the report as one HTML file.")
    ] = "",
    json: JsonOption = False,
) -> None:
    """Measure how quickly a server answers, with --rate as callers would meet it, else as fast as it can."""
    address = read_address(url, model)
    headers = _headers(header or [], key)
    count = connections or (_CLOSED_CONNECTIONS if rate is None else _OPEN_CONNECTIONS)
    if count < processes:
        raise InvalidInput(f"{count} connections cannot be shared by {processes} processes.")
    server = connect(address, headers, timeout, ca_file)
    wish = Wish(body=body, content_type=content_type, data=data, rows=rows, binary=binary)
    target, payload = prepare(address, wish, server)
    plan = Plan(
        target=target,
        payload=payload,
        rate=rate,
        arrivals=arrivals,
        connections=count,
        seconds=seconds,
        warmup=warmup,
        timeout=timeout,
        processes=processes,
        seed=seed,
        headers=headers,
        ca_file=ca_file,
    )
    try_once(server, plan)
    with progress_bar(quiet=json) as progress:
        report = make_report(plan, drive(plan, progress))
    if json:
        print_json(report)
    else:
        _show(report)
    if html:  # last, so that a full disk does not take the figures with it
        _write(html, page(report, _summary(report), _client(report)))
    if not report.ok:
        raise typer.Exit(1)


def _headers(given: list[str], key: str) -> list[tuple[str, str]]:
    pairs = [("authorization", f"Bearer {key}")] if key else []
    for text in given:
        name, colon, value = text.partition(":")
        if not colon or not name.strip() or "\r" in text or "\n" in text:
            raise InvalidInput(f"--header {text!r} is not NAME:VALUE.")
        pairs.append((name.strip(), value.strip()))
    return pairs


def _show(report: Report) -> None:
    print_line(_summary(report))
    print_line()
    wanted = "" if report.wanted_rate is None else f"{report.wanted_rate:,.1f}/s wanted, "
    rows = "" if report.rows_rate is None or report.rows == 1 else f", {report.rows_rate:,.0f} rows/s"
    print_line(f"rate     {wanted}{report.achieved_rate:,.1f}/s achieved{rows}")
    failed = ", ".join(f"{count:,} {name}" for name, count in report.errors.items())
    print_line(f"answers  {report.ok:,} ok" + (f", {failed}" if failed else ", no errors"))
    print_line()
    first = "due to answered" if report.loop == "open" else "sent to answered"
    lines = [_latency_row(first, report.latency)]
    if report.loop == "open":
        lines.append(_latency_row("sent to answered", report.service))
    print_table(("latency", "mean", "p50", "p90", "p99", "p99.9", "max"), lines)
    for line in ("", *plots(report)):
        print_line(line)
    print_line()
    print_line(_client(report))
    for text in report.notes:
        print_line(text)
    for text in report.warnings:
        print_line(f"warning: {text}")


def _latency_row(name: str, latencies: Latencies) -> tuple[str, ...]:
    values = (latencies.mean, latencies.p50, latencies.p90, latencies.p99, latencies.p999, latencies.max)
    return (name, *(seconds_text(value) for value in values))


def _summary(report: Report) -> str:
    loop = (
        "closed loop"
        if report.wanted_rate is None
        else f"open loop, {report.wanted_rate:,g}/s {report.arrivals}"
    )
    rows = "" if report.rows is None else f"{report.rows} row{'s' if report.rows != 1 else ''}, "
    return (
        f"{report.address}  {loop}, {report.connections} connections, {report.seconds:g} s after {report.warmup:g} s of "
        f"warm-up; {rows}{report.body_bytes:,} bytes a request from {report.body}"
    )


def _client(report: Report) -> str:
    lag = f", sent {seconds_text(report.client_lag.p99)} late at p99" if report.loop == "open" else ""
    several = "es" if report.processes != 1 else ""
    return f"client: {report.processes} process{several}, {report.client_busy:.0%} of a core at most{lag}"


def _write(path: str, text: str) -> None:
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise StorageFull(f"{path} cannot be written: {error.strerror}.") from error
