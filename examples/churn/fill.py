"""Fills the table `customers` of a database with the customers of one day, as a company's own systems would.

python -m examples.churn.fill postgresql://user@host/database --rows 20000 --day 1
"""

from __future__ import annotations

import argparse

import sqlalchemy as sa

from examples.churn.simulate import KEY, TARGET, customers

TABLE = "customers"


def fill(url: str, *, rows: int, day: int = 0, seed: int = 21) -> None:
    """Replaces the table. The label is not in it: nobody knows it yet."""
    frame = customers(rows, day=day, seed=seed).drop(columns=TARGET)
    place = sa.make_url(url)
    if place.drivername in ("postgresql", "postgres"):
        place = place.set(drivername="postgresql+psycopg")
    engine = sa.create_engine(place)
    table = sa.Table(
        TABLE,
        sa.MetaData(),
        sa.Column(KEY, sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("tenure_days", sa.BigInteger),
        sa.Column("plan", sa.Text),
        sa.Column("monthly_fee", sa.Double),
        sa.Column("support_calls", sa.Double),
        sa.Column("days_since_login", sa.Double),
        sa.Column("country", sa.Text),
        sa.Column("autopay", sa.Boolean),
    )
    plain = frame.astype(object).where(frame.notna(), None)
    found = [dict(zip(plain.columns, row, strict=True)) for row in plain.itertuples(index=False)]
    try:
        with engine.begin() as connection:
            table.drop(connection, checkfirst=True)
            table.create(connection)
            for start in range(0, len(found), 1000):
                connection.execute(sa.insert(table), found[start : start + 1000])
    finally:
        engine.dispose()


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Fill the table of customers.")
    parser.add_argument("url")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--day", type=int, default=0)
    given = parser.parse_args(arguments)
    fill(given.url, rows=given.rows, day=given.day)
    print(f"{given.rows} customers of day {given.day} are in the table {TABLE}")


if __name__ == "__main__":
    main()
