"""Brings the tables up to date. Imported only when that is needed: alembic takes about a second to import."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config

_MIGRATIONS = Path(__file__).parent / "migrations"


def config(connection: sa.Connection) -> Config:
    """Alembic's configuration for a connection that is already inside a transaction."""
    made = Config()
    made.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    made.set_main_option("path_separator", "os")
    made.attributes["connection"] = connection
    return made


def upgrade(connection: sa.Connection) -> None:
    """Runs every migration that is missing, in the connection's transaction: all of them or none."""
    command.upgrade(config(connection), "head")
