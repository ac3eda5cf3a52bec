"""Incidents, their events, the messages about them that are to be sent, and silences."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "fairway_incidents",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("cause", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("updated", sa.Text, nullable=False),
        sa.Column("incident", sa.Text, nullable=False),
    )
    op.create_index(
        "fairway_incidents_one_per_cause",
        "fairway_incidents",
        ["cause"],
        unique=True,
        sqlite_where=sa.text("state <> 'resolved'"),
        postgresql_where=sa.text("state <> 'resolved'"),
    )
    op.create_index("fairway_incidents_by_time", "fairway_incidents", ["state", "updated"])
    op.create_table(
        "fairway_events",
        sa.Column("sequence", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("incident", sa.Text, nullable=False),
        sa.Column("at", sa.Text, nullable=False),
        sa.Column("event", sa.Text, nullable=False),
    )
    op.create_index("fairway_events_by_incident", "fairway_events", ["incident", "sequence"])
    op.create_table(
        "fairway_outbox",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("channel", sa.Text, nullable=False),
        sa.Column("incident", sa.Text, nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("due", sa.Text, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
    )
    op.create_index("fairway_outbox_by_channel", "fairway_outbox", ["channel", "state", "sequence"])
    op.create_table(
        "fairway_outbox_senders",
        sa.Column("channel", sa.Text, primary_key=True),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("until", sa.Text, nullable=False),
    )
    op.create_table(
        "fairway_silences",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("until", sa.Text, nullable=False),
        sa.Column("silence", sa.Text, nullable=False),
    )
