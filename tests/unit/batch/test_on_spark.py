"""Sessions that cannot be had, each said at once and by name."""

import socket
import sys
from contextlib import closing

import pytest

from fairway.batch.on_spark import open_session
from fairway.core.errors import MissingExtra, SettingsError, Unavailable


def test_a_connect_server_that_is_away_is_said_at_once() -> None:
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(Unavailable, match=f"no Spark Connect server answers at 127.0.0.1:{port}"):
        open_session(f"sc://127.0.0.1:{port}/;token=secret", {})
    with pytest.raises(SettingsError, match="no address"):
        open_session("sc://host:port", {})


def test_a_package_of_spark_connect_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("pyspark.sql.connect")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "grpc_status", None)
    # A process without a main file is one that runs doctests, pyspark thinks, and ends it; xdist's have none.
    monkeypatch.setattr(sys.modules["__main__"], "__file__", __file__, raising=False)
    with (
        closing(socket.create_server(("127.0.0.1", 0))) as server,
        pytest.raises(MissingExtra, match="grpcio-status") as missing,
    ):
        open_session(f"sc://127.0.0.1:{server.getsockname()[1]}", {})
    assert "fairway[spark]" in (missing.value.hint or "")
