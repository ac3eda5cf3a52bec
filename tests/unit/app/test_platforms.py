"""What SageMaker and Vertex AI tell the containers they start."""

from pathlib import Path

import pytest

from fairway.app.sagemaker import container_settings
from fairway.app.settings import read_settings
from fairway.core.errors import SettingsError


def test_their_variables_are_settings(tmp_path: Path) -> None:
    (tmp_path / "fairway.toml").write_text("[serving]\nport = 1\nworkers = 2\n")
    environ = {
        "AIP_HTTP_PORT": "9000",
        "AIP_HEALTH_ROUTE": "/health",
        "AIP_PREDICT_ROUTE": "/predict",
        "AIP_DEPLOYED_MODEL_ID": "7",
        "SAGEMAKER_MODEL_SERVER_WORKERS": "3",
        "SAGEMAKER_MAX_CONCURRENT_TRANSFORMS": "8",
        "SAGEMAKER_BATCH_STRATEGY": "SINGLE_RECORD",
        "SAGEMAKER_MAX_PAYLOAD_IN_MB": "",
    }
    settings = read_settings(tmp_path, environ)
    assert (settings.serving.port, settings.serving.workers) == (9000, 3)
    assert (settings.vertex.health_route, settings.vertex.predict_route) == ("/health", "/predict")
    assert settings.vertex.deployed_model_id == "7"
    assert settings.sagemaker.max_concurrent_transforms == 8
    assert settings.sagemaker.batch_strategy == "SINGLE_RECORD"
    assert settings.sagemaker.max_payload_mb == 0
    assert read_settings(tmp_path, environ | {"FAIRWAY_SERVING_PORT": "9001"}).serving.port == 9001
    assert read_settings(tmp_path, {}).serving.port == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SAGEMAKER_BATCH_STRATEGY", "OTHER"),
        ("SAGEMAKER_MAX_PAYLOAD_IN_MB", "101"),
        ("SAGEMAKER_BIND_TO_PORT", "x"),
    ],
)
def test_what_they_would_not_say(tmp_path: Path, name: str, value: str) -> None:
    with pytest.raises(SettingsError):
        read_settings(tmp_path, {name: value})


def test_a_container_listens_to_its_platform(tmp_path: Path) -> None:
    settings = container_settings(read_settings(tmp_path, {"SAGEMAKER_MAX_PAYLOAD_IN_MB": "100"}))
    assert (settings.serving.host, settings.serving.port, settings.serving.grpc) == ("0.0.0.0", 8080, False)
    assert settings.access.open_admin
    assert settings.limits.body_bytes == 100 * 2**20
