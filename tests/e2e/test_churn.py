"""`examples/churn` as its README tells it, with data and registry in a real PostgreSQL."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import psycopg
import pytest

import fairway
from examples.churn.simulate import FEATURES, KEY, TARGET, customers
from fairway.app.schedules import open_desk
from tests.documents import ROOT, Reader, steps
from tests.services import Postgres

pytestmark = pytest.mark.e2e


@pytest.fixture
def reader(tmp_path: Path, postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> Iterator[Reader]:
    monkeypatch.setenv("DATABASE", postgres.new_database())
    monkeypatch.setenv("FAIRWAY_MONITORING_ENABLED", "false")
    monkeypatch.setenv("FAIRWAY_REGISTRY_DATABASE_URL", postgres.new_database())
    reader = Reader(tmp_path)
    yield reader
    reader.close()


@pytest.mark.timeout(600)
def test_every_night_all_customers_are_scored_from_one_table_into_another(
    reader: Reader, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    for step in steps((ROOT / "examples" / "churn" / "README.md").read_text()):
        reader.take(step)
    # What is in the table is what the model says of the customers of the second night, each once.
    with psycopg.connect(os.environ["DATABASE"]) as connection:
        cursor = connection.execute("SELECT * FROM churn_scores ORDER BY customer_id")
        names = [column.name for column in cursor.description or ()]
        scores = pd.DataFrame(cursor.fetchall(), columns=names)
    frame = customers(20_500, day=1, seed=21).drop(columns=TARGET)
    np.testing.assert_array_equal(scores[KEY].to_numpy(), frame[KEY].to_numpy())
    model = fairway.load("churn", home=home)
    told = model.predict(frame[FEATURES].head(500))
    for name in told:
        found = [column for column in names if column == name or column.startswith(f"{name}_")]
        wanted = np.asarray(told[name]).reshape(500, -1)
        np.testing.assert_allclose(scores[found].head(500).to_numpy(), wanted, rtol=1e-6, err_msg=name)
    with open_desk(home) as (desk, _):
        runs = desk.history("churn-nightly")
        [view] = desk.list()
    assert [(run.state, run.rows, run.rejected, run.kind) for run in runs] == [
        ("succeeded", 20_500, 0, "manual"),
        ("succeeded", 20_000, 0, "manual"),
    ]
    assert view.schedule.time_zone == "Europe/Berlin"
