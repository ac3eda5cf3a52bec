"""The registry's tables. Migrations under `migrations/` make them; a test compares the two.

Names start with `fairway_` so that a PostgreSQL database can be shared. History and versions are append-only:
triggers refuse UPDATE and DELETE.
"""

from __future__ import annotations

import sqlalchemy as sa

HEAD = "0005"
"""The newest migration. Their names count up, so that an older Fairway knows a newer schema when it sees one."""

VERSION_TABLE = "fairway_schema"

metadata = sa.MetaData()

registry = sa.Table(
    "fairway_registry",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("revision", sa.BigInteger, nullable=False),
    sa.CheckConstraint("id = 1", name="fairway_registry_is_one_row"),
)
"""One row. A writer on PostgreSQL locks it, so there is one writer at a time."""

versions = sa.Table(
    "fairway_versions",
    metadata,
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("engine", sa.Text, nullable=False),
    sa.Column("input_signature", sa.Text, nullable=False),
    sa.Column("created", sa.Text, nullable=False),
    sa.Column("created_by", sa.Text, nullable=False),
    sa.Column("note", sa.Text, nullable=False),
    sa.CheckConstraint("version >= 1", name="fairway_versions_count_from_1"),
    sa.UniqueConstraint("model", "digest", name="fairway_versions_digest"),
)

files = sa.Table(
    "fairway_files",
    metadata,
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("path", sa.Text, primary_key=True),
    sa.Column("sha256", sa.Text, nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.ForeignKeyConstraint(["model", "version"], ["fairway_versions.model", "fairway_versions.version"]),
)

aliases = sa.Table(
    "fairway_aliases",
    metadata,
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("alias", sa.Text, primary_key=True),
    sa.Column("version", sa.Integer, nullable=False),
    sa.ForeignKeyConstraint(["model", "version"], ["fairway_versions.model", "fairway_versions.version"]),
)

routes = sa.Table(
    "fairway_routes",
    metadata,
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("route", sa.Text, nullable=False),
    sa.Column("revision", sa.Integer, nullable=False),
)
"""`route` is the value as JSON."""

changes = sa.Table(
    "fairway_changes",
    metadata,
    sa.Column("sequence", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("what", sa.Text, nullable=False),
    sa.Column("before", sa.Text),
    sa.Column("after", sa.Text),
    sa.Column("who", sa.Text, nullable=False),
    sa.Column("why", sa.Text, nullable=False),
    sa.Column("at", sa.Text, nullable=False),
    sa.Column("restores", sa.BigInteger),
    sa.Index("fairway_changes_by_model", "model", "what", "sequence"),
)

keys = sa.Table(
    "fairway_keys",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("revoked", sa.Text),
    sa.Index(
        "fairway_keys_by_name",
        "name",
        unique=True,
        sqlite_where=sa.text("revoked IS NULL"),
        postgresql_where=sa.text("revoked IS NULL"),
    ),
)
"""`key` is the value as JSON, with the hash of the secret. Of one name, one key is not revoked. Triggers refuse DELETE,
and UPDATE of a key that is revoked."""

_NOT_RESOLVED = sa.text("state <> 'resolved'")

incidents = sa.Table(
    "fairway_incidents",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("cause", sa.Text, nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("updated", sa.Text, nullable=False),
    sa.Column("incident", sa.Text, nullable=False),
    sa.Index(
        "fairway_incidents_one_per_cause",
        "cause",
        unique=True,
        sqlite_where=_NOT_RESOLVED,
        postgresql_where=_NOT_RESOLVED,
    ),
    sa.Index("fairway_incidents_by_time", "state", "updated"),
)
"""`incident` is the value as JSON. Of one cause, one incident is not resolved."""

events = sa.Table(
    "fairway_events",
    metadata,
    sa.Column("sequence", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("incident", sa.Text, nullable=False),
    sa.Column("at", sa.Text, nullable=False),
    sa.Column("event", sa.Text, nullable=False),
    sa.Index("fairway_events_by_incident", "incident", "sequence"),
)
"""`event` is the value as JSON. Numbered in the order of the transactions that wrote them."""

outbox = sa.Table(
    "fairway_outbox",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("channel", sa.Text, nullable=False),
    sa.Column("incident", sa.Text, nullable=False),
    sa.Column("sequence", sa.BigInteger, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("due", sa.Text, nullable=False),
    sa.Column("message", sa.Text, nullable=False),
    sa.Index("fairway_outbox_by_channel", "channel", "state", "sequence"),
)
"""Messages that are to be sent (`waiting`) or could not be (`dead`); one that was sent is deleted. `message` is the value
as JSON."""

outbox_senders = sa.Table(
    "fairway_outbox_senders",
    metadata,
    sa.Column("channel", sa.Text, primary_key=True),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("until", sa.Text, nullable=False),
)
"""Which process sends to a channel, and until when nobody else may."""

silences = sa.Table(
    "fairway_silences",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("until", sa.Text, nullable=False),
    sa.Column("silence", sa.Text, nullable=False),
)

leases = sa.Table(
    "fairway_leases",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("holder", sa.Text, nullable=False),
    sa.Column("token", sa.BigInteger, nullable=False),
    sa.Column("beat", sa.BigInteger, nullable=False),
    sa.Column("seconds", sa.Double, nullable=False),
)
"""Who leads. `token` counts the takings, `beat` the renewals of one; no time is kept, so no clock need agree with another."""

schedules = sa.Table(
    "fairway_schedules",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("schedule", sa.Text, nullable=False),
    sa.Column("paused", sa.Boolean, nullable=False),
    sa.Column("settled", sa.Text, nullable=False),
    sa.Column("forgotten", sa.Text, nullable=False),
)
"""`schedule` is the value as JSON. Times up to `settled` are dealt with; runs due up to `forgotten` may have been pruned."""

_NOT_MANUAL = sa.text("kind <> 'manual'")

schedule_runs = sa.Table(
    "fairway_schedule_runs",
    metadata,
    sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("schedule", sa.Text, nullable=False),
    sa.Column("due", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("run", sa.Text, nullable=False),
    sa.Index("fairway_schedule_runs_by_schedule", "schedule", "id"),
    sa.Index("fairway_schedule_runs_by_state", "state"),
    sa.Index(
        "fairway_schedule_runs_once",
        "schedule",
        "due",
        unique=True,
        sqlite_where=_NOT_MANUAL,
        postgresql_where=_NOT_MANUAL,
    ),
)
"""`run` is the value as JSON. Of one schedule and due time there is one run, not counting those asked for by hand."""

monitor_windows = sa.Table(
    "fairway_monitor_windows",
    metadata,
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("digest", sa.Text, primary_key=True),
    sa.Column("start", sa.Text, primary_key=True),
    sa.Column("end", sa.Text, nullable=False),
    sa.Column("rows", sa.BigInteger, nullable=False),
    sa.Column("summary", sa.LargeBinary, nullable=False),
    sa.Column("report", sa.LargeBinary, nullable=False),
    sa.Column("profile", sa.LargeBinary, nullable=False),
    sa.Index("fairway_monitor_windows_by_start", "model", "start"),
)
"""What monitors saw. The large columns stand last, so that rows are read without them."""

monitor_marks = sa.Table(
    "fairway_monitor_marks",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)
