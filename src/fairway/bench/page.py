"""The report as one HTML file: figures, warnings and two drawings, nothing loaded from anywhere."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jinja2
import markupsafe

from fairway.bench.plot import duration
from fairway.bench.report import Report

_WIDTH, _HEIGHT = 860, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 14, 12, 34
_NINES = (0.0, 0.5, 0.9, 0.99, 0.999, 0.9999)

Line = tuple[str, Sequence[tuple[float, float]]]
"""A name, which is also its class in the style sheet, and points with y > 0."""

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Load test of {{ r.address }}</title>
<style>
:root { --ink: #1c2430; --soft: #667085; --line: #d5dae1; --page: #fff; --a: #2563eb; --b: #d97706; --c: #b91c1c; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ee; --soft: #98a2b3; --line: #344054; --page: #12161c; --a: #7aa7ff; --b: #f0b155; --c: #ff8a80; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page); max-width: 900px;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.3rem; overflow-wrap: anywhere; } h2 { font-size: 1rem; margin-top: 2rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .25rem .5rem; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; } th { color: var(--soft); font-weight: 500; }
.warning { border-left: 4px solid var(--c); padding: .3rem .8rem; margin: .5rem 0; }
.note { border-left: 4px solid var(--line); padding: .3rem .8rem; margin: .5rem 0; color: var(--soft); }
svg { width: 100%; height: auto; } svg text { fill: var(--soft); font-size: 12px; }
.axis { stroke: var(--line); stroke-width: 1; } polyline { fill: none; stroke-width: 2; }
.p50 { stroke: var(--a); } .p99, .all { stroke: var(--b); } .max { stroke: var(--c); }
.key.p50 { color: var(--a); } .key.p99 { color: var(--b); } .key.max { color: var(--c); }
</style></head><body>
<h1>Load test of {{ r.address }}</h1>
<p>{{ summary }}</p>
{% for text in r.warnings %}<p class="warning">{{ text }}</p>
{% endfor %}{% for text in r.notes %}<p class="note">{{ text }}</p>
{% endfor %}
<table><tr><th></th><th>wanted</th><th>achieved</th></tr>
<tr><td>requests a second</td><td>{{ "-" if r.wanted_rate is none else "{:,.1f}".format(r.wanted_rate) }}</td>
<td>{{ "{:,.1f}".format(r.achieved_rate) }}</td></tr>
{% if r.rows_rate is not none %}<tr><td>rows a second</td><td></td><td>{{ "{:,.1f}".format(r.rows_rate) }}</td></tr>
{% endif %}</table>
<h2>Latency</h2>
<table><tr><th></th><th>mean</th><th>p50</th><th>p90</th><th>p99</th><th>p99.9</th><th>max</th></tr>
{% for name, l in latencies %}<tr><td>{{ name }}</td>{% for v in (l.mean, l.p50, l.p90, l.p99, l.p999, l.max) %}<td>{{ duration(v) }}</td>{% endfor %}</tr>
{% endfor %}</table>
<h2>Latency by percentile</h2>{{ curve }}
<h2>Latency over time: <span class="key p50">p50</span> <span class="key p99">p99</span> <span class="key max">max</span></h2>
{{ over_time }}
<h2>Outcomes</h2>
<table><tr><th>outcome</th><th>requests</th></tr><tr><td>answered</td><td>{{ "{:,}".format(r.ok) }}</td></tr>
{% for name, count in r.errors.items() %}<tr><td>{{ name }}</td><td>{{ "{:,}".format(count) }}</td></tr>
{% endfor %}</table>
<p class="note">{{ client }}</p>
</body></html>
"""


def page(report: Report, summary: str, client: str) -> str:
    """`summary` says what was done, `client` how the client itself fared."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    first = "due to answered" if report.loop == "open" else "sent to answered"
    latencies = [(first, report.latency)]
    if report.loop == "open":
        latencies.append(("sent to answered", report.service))
    moments = [moment for moment in report.over_time if moment.max > 0]
    over_time: list[Line] = [
        ("max", [(m.at, m.max) for m in moments]),
        ("p99", [(m.at, m.p99) for m in moments]),
        ("p50", [(m.at, m.p50) for m in moments]),
    ]
    longest = math.log10(max(report.ok, 10))
    curve: list[Line] = [("all", [(_nines(share, longest), s) for share, s in report.curve if s > 0])]
    ticks = [
        (_nines(share, longest), f"{share * 100:g} %") for share in _NINES if _nines(share, longest) < longest
    ]
    span = moments[-1].at if moments else 0.0
    return environment.from_string(_PAGE).render(
        r=report,
        summary=summary,
        client=client,
        latencies=latencies,
        duration=duration,
        curve=drawing(curve, ticks),
        over_time=drawing(over_time, [(span * i / 6, f"{span * i / 6:.3g} s") for i in range(7)]),
    )


def _nines(share: float, longest: float) -> float:
    return min(-math.log10(1 - share), longest) if share < 1 else longest


def drawing(lines: Sequence[Line], ticks: Sequence[tuple[float, str]]) -> markupsafe.Markup:
    """An SVG; y is logarithmic. Empty when there is nothing to draw."""
    points = [point for _, line in lines for point in line]
    if not points:
        return markupsafe.Markup("<p>Nothing was answered.</p>")
    left, right = min(x for x, _ in points), max(x for x, _ in points)
    low = math.floor(math.log10(min(y for _, y in points)) * 2) / 2
    high = max(math.ceil(math.log10(max(y for _, y in points)) * 2) / 2, low + 0.5)

    def across(x: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * ((x - left) / (right - left) if right > left else 0.5)

    def down(y: float) -> float:
        return _TOP + (_HEIGHT - _TOP - _BOTTOM) * (high - math.log10(y)) / (high - low)

    parts = [f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">']
    for half in range(round(low * 2), round(high * 2) + 1):
        y = down(10 ** (half / 2))
        parts.append(f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(
            f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{duration(10 ** (half / 2))}</text>'
        )
    for x, text in ticks:
        if left <= x <= right:
            parts.append(f'<text x="{across(x):.1f}" y="{_HEIGHT - 12}" text-anchor="middle">{text}</text>')
    for name, line in lines:
        path = " ".join(f"{across(x):.1f},{down(y):.1f}" for x, y in line)
        parts.append(f'<polyline class="{name}" points="{path}"/>')
    return markupsafe.Markup("".join([*parts, "</svg>"]))  # noqa: S704 - made of numbers and our own words
