"""Leases, schedules and the runs of schedules."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "fairway_leases",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("holder", sa.Text, nullable=False),
        sa.Column("token", sa.BigInteger, nullable=False),
        sa.Column("beat", sa.BigInteger, nullable=False),
        sa.Column("seconds", sa.Double, nullable=False),
    )
    op.create_table(
        "fairway_schedules",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("schedule", sa.Text, nullable=False),
        sa.Column("paused", sa.Boolean, nullable=False),
        sa.Column("settled", sa.Text, nullable=False),
        sa.Column("forgotten", sa.Text, nullable=False),
    )
    op.create_table(
        "fairway_schedule_runs",
        sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("schedule", sa.Text, nullable=False),
        sa.Column("due", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("run", sa.Text, nullable=False),
    )
    op.create_index("fairway_schedule_runs_by_schedule", "fairway_schedule_runs", ["schedule", "id"])
    op.create_index("fairway_schedule_runs_by_state", "fairway_schedule_runs", ["state"])
    op.create_index(
        "fairway_schedule_runs_once",
        "fairway_schedule_runs",
        ["schedule", "due"],
        unique=True,
        sqlite_where=sa.text("kind <> 'manual'"),
        postgresql_where=sa.text("kind <> 'manual'"),
    )
