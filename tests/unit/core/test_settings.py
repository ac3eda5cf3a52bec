import inspect
import re
from pathlib import Path

import msgspec
import pytest

from fairway.core import settings
from fairway.core.settings import LimitSettings, Settings


def test_a_key_that_is_misspelt_is_an_error() -> None:
    with pytest.raises(msgspec.ValidationError, match="unknown field `body_byte`"):
        msgspec.convert({"limits": {"body_byte": 1}}, Settings)
    with pytest.raises(msgspec.ValidationError, match="unknown field `limit`"):
        msgspec.convert({"limit": {}}, Settings)


def test_settings_are_values() -> None:
    root = Settings()
    with pytest.raises(AttributeError):
        root.limits.rows = 1  # type: ignore[misc]
    assert msgspec.convert({"limits": {"rows": 5}}, Settings).limits == LimitSettings(rows=5)


def test_a_server_is_on_loopback_and_an_answer_bounded_unless_told_otherwise() -> None:
    root = Settings()
    assert root.serving.host == "127.0.0.1"
    assert root.limits.body_bytes == 64 * 2**20


def test_numbers_of_something_other_than_things_say_their_unit() -> None:
    """Names end in a unit, or count things that have none."""
    counts = {
        "port",
        "grpc_port",
        "workers",
        "threads",
        "queue",
        "engine_threads",
        "rows",
        "problems",
        "queue_rows",
        "environments",
        "processes",
        "trace_queue",
        "trace_rate",
        "label_queue",
        "retries",
        "rows_per_file",
        "seed",
    }
    source = Path(inspect.getfile(settings)).read_text()
    for name in re.findall(r"^    (\w+): (?:int|float) =", source, re.MULTILINE):
        assert name in counts or name.endswith(("_bytes", "_seconds")), name
