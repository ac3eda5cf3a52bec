"""One registry for several machines: one deploys, another serves, and goes on when the database is gone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import fairway
from fairway.core.errors import RegistryUnavailable
from tests.e2e.servers import numeric_data, numeric_model, output, refused, serving
from tests.services import S3, Postgres, free_port

pytestmark = pytest.mark.e2e


def machine(folder: Path, database: str, blobs: str, s3: S3) -> Path:
    """A home whose registry lies elsewhere."""
    folder.mkdir()
    (folder / "fairway.toml").write_text(
        f"""[registry]
database_url = "{database}"
blobs_url = "{blobs}"

[registry.blobs_options]
endpoint_url = "{s3.endpoint}"
key = "test"
secret = "test"
"""
    )
    return folder


def test_deployed_on_one_machine_and_served_on_another(postgres: Postgres, s3: S3, tmp_path: Path) -> None:
    database, blobs = postgres.new_database(), s3.new_bucket()
    first = machine(tmp_path / "first", database, blobs, s3)
    second = machine(tmp_path / "second", database, blobs, s3)
    data = numeric_data()
    features, model = data.drop(columns="y"), numeric_model(data)
    expected = model.predict(features[:5])
    body = {"dataframe_split": {"columns": list(features), "data": features[:5].to_numpy().tolist()}}

    assert fairway.deploy(model, data=data, target="y", name="visits", home=first).version == 1
    assert not (first / "registry.db").exists()
    with serving(second) as server:
        status, _, answer = server.post(body, "/v2/models/visits/infer")
        assert status == 200, answer
        np.testing.assert_allclose(output(answer, "prediction"), expected, rtol=1e-5)

    away = database.replace(f":{postgres.port}/", f":{free_port()}/")
    (second / "fairway.toml").write_text((second / "fairway.toml").read_text().replace(database, away))
    with serving(second) as server:  # from what was live before
        assert server.post(body, "/v2/models/visits/infer")[0] == 200
        assert "serving what was live before" in server.errors.read_text()
    with pytest.raises(RegistryUnavailable):
        fairway.load("visits", home=second)
    third = machine(tmp_path / "third", away, blobs, s3)
    code, said = refused(third)
    assert (code, said["code"]) == (7, "registry_unavailable")
