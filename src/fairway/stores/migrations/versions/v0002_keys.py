"""API keys."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "fairway_keys",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("revoked", sa.Text),
    )
    op.create_index(
        "fairway_keys_by_name",
        "fairway_keys",
        ["name"],
        unique=True,
        sqlite_where=sa.text("revoked IS NULL"),
        postgresql_where=sa.text("revoked IS NULL"),
    )
    if op.get_bind().dialect.name == "sqlite":
        _guard_sqlite()
    else:
        _guard_postgresql()


def _guard_sqlite() -> None:
    op.execute(
        "CREATE TRIGGER fairway_keys_no_delete BEFORE DELETE ON fairway_keys "
        "BEGIN SELECT RAISE(ABORT, 'fairway_keys are revoked, never deleted'); END"
    )
    op.execute(
        "CREATE TRIGGER fairway_keys_stay_revoked BEFORE UPDATE ON fairway_keys WHEN old.revoked IS NOT NULL "
        "BEGIN SELECT RAISE(ABORT, 'fairway_keys stay revoked'); END"
    )


def _guard_postgresql() -> None:
    op.execute(
        "CREATE FUNCTION fairway_keys_guard() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "IF TG_OP = 'UPDATE' THEN IF OLD.revoked IS NULL THEN RETURN NEW; END IF; END IF; "
        "RAISE EXCEPTION 'fairway_keys are revoked, never deleted, and stay revoked'; END $$"
    )
    op.execute(
        "CREATE TRIGGER fairway_keys_guard BEFORE UPDATE OR DELETE ON fairway_keys "
        "FOR EACH ROW EXECUTE FUNCTION fairway_keys_guard()"
    )
    op.execute(
        "CREATE TRIGGER fairway_keys_no_truncate BEFORE TRUNCATE ON fairway_keys "
        "FOR EACH STATEMENT EXECUTE FUNCTION fairway_keys_guard()"
    )
