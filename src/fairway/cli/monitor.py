"""`fairway monitor VERB`: each verb's module alone is imported, since looking needs far more than listing."""

from __future__ import annotations

from fairway.cli.verbs import Verbs

VERBS: dict[str, tuple[str, str]] = {
    "list": ("fairway.cli.monitor_windows:list", "Every version that is watched, with its last window."),
    "look": ("fairway.cli.monitor_look", "Look now at every window that is over."),
    "show": ("fairway.cli.monitor_windows:show", "A window in full: columns ranked by drift, performance."),
    "report": (
        "fairway.cli.monitor_windows:report",
        "One file with all that the dashboard shows of a model.",
    ),
    "grafana": ("fairway.cli.monitor_files:grafana", "Write dashboards for Grafana."),
    "rules": ("fairway.cli.monitor_files:rules", "Print alert rules for Prometheus."),
}

app = Verbs(
    VERBS,
    name="monitor",
    help="What monitors saw of each model; dashboards and rules for Grafana and Prometheus.",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example:  fairway monitor report payments --html report.html",
)
