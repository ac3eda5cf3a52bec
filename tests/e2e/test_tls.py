"""`fairway serve` over TLS: requests on kept connections, new certificates under load, clients without one."""

import http.client
import json
import os
import shutil
import ssl
import subprocess
import threading
from contextlib import closing
from pathlib import Path

import pytest

from fairway.app.home import open_home
from fairway.app.keys import create_key
from fairway.cli.main import main
from tests.certificates import Authority, new_authority
from tests.e2e.servers import FAIRWAY, Server, refused, serving, until

pytestmark = pytest.mark.e2e

ROWS = json.dumps(
    {"inputs": [{"name": n, "shape": [2], "datatype": "FP64", "data": [1.0, 2.0]} for n in "abc"]}
)
QUICK = {"FAIRWAY_TLS_POLL_SECONDS": "0.05"}


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return new_authority(tmp_path)


def options(files: tuple[Path, Path]) -> list[str]:
    return ["--tls-cert", str(files[0]), "--tls-key", str(files[1])]


def connect(
    running: Server, authority: Authority, client: tuple[Path, Path] | None = None
) -> http.client.HTTPSConnection:
    context = ssl.create_default_context(cafile=authority.file)
    if client is not None:
        context.load_cert_chain(*client)
    return http.client.HTTPSConnection(running.address, timeout=30, context=context)


def ask(connection: http.client.HTTPConnection, path: str = "/v2/models/line/infer", **headers: str) -> int:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request("POST", path, ROWS, {"content-type": "application/json", **named})
    answer = connection.getresponse()
    body = json.loads(answer.read())
    assert answer.status != 200 or body["outputs"][0]["shape"][0] == 2
    return answer.status


def turned_away(connection: http.client.HTTPConnection) -> None:
    with closing(connection), pytest.raises((ssl.SSLError, ConnectionError, http.client.HTTPException)):
        ask(connection)


def served_by(connection: http.client.HTTPSConnection) -> str:
    """The common name of the certificate that the server showed this connection."""
    told = connection.sock.getpeercert()
    (((_, name),),) = told["subject"]
    return str(name)


def test_certificates_change_under_live_connections_and_no_request_fails(
    home: Path, tmp_path: Path, authority: Authority
) -> None:
    files = authority.issue(tmp_path, "first", stem="server")
    renewed = authority.issue(tmp_path, "second")
    stop = threading.Event()
    seen: list[tuple[int, str]] = []
    problems: list[Exception] = []

    def keep_asking(running: Server, *, anew: bool) -> None:
        try:
            connection = connect(running, authority)
            while not stop.is_set():
                seen.append((ask(connection), served_by(connection)))
                if anew:
                    connection.close()
            connection.close()
        except Exception as error:  # noqa: BLE001 - told by the test, not lost in a thread
            problems.append(error)

    with serving(home, "line", "--workers", "2", *options(files), environ=QUICK) as running:
        threads = [
            threading.Thread(target=keep_asking, args=(running,), kwargs={"anew": anew})
            for anew in (False, False, True)
        ]
        for thread in threads:
            thread.start()
        until(lambda: len(seen) > 50 or bool(problems), 60)
        for source, destination in zip(renewed, files, strict=True):
            beside = tmp_path / "beside"
            shutil.copy(source, beside)
            os.replace(beside, destination)
        until(lambda: any(name == "second" for _, name in seen) or bool(problems), 60)

        def both_workers_changed() -> bool:
            names = []
            for _ in range(12):
                connection = connect(running, authority)
                ask(connection)
                names.append(served_by(connection))
                connection.close()
            return set(names) == {"second"}

        until(both_workers_changed, 60)
        mark = len(seen)
        until(lambda: len(seen) > mark + 50 or bool(problems), 60)
        stop.set()
        for thread in threads:
            thread.join()
    assert problems == []
    assert {status for status, _ in seen} == {200}
    assert {name for _, name in seen[mark:]} == {"first", "second"}  # the kept ones live on


def test_fairway_predict_with_a_key_over_tls(home_copy: Path, tmp_path: Path, authority: Authority) -> None:
    def predict(*more: str, **environ: str) -> tuple[int, str]:
        command = [
            FAIRWAY,
            "predict",
            "line",
            str(tmp_path / "rows.csv"),
            "--url",
            f"https://{running.address}",
            *more,
        ]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=60, check=False, env={**os.environ, **environ}
        )
        return done.returncode, done.stdout + done.stderr

    (tmp_path / "rows.csv").write_text("a,b,c\n1,2,3\n")
    trusted = ["--ca-file", str(authority.file)]
    with open_home(home_copy) as place:
        _, secret = create_key(place, "app", scopes=("infer",), why="test")
        _, scraper = create_key(place, "scraper", scopes=("metrics",), why="test")
    with serving(home_copy, "line", *options(authority.issue(tmp_path, "server"))) as running:
        assert predict(*trusted, "--key", secret)[0] == 0
        assert predict(*trusted, FAIRWAY_KEY=secret)[0] == 0
        assert "asks for an API key" in predict(*trusted)[1]
        assert "has not the scope" in predict(*trusted, "--key", scraper)[1]
        code, told = predict("--key", secret)
        assert code == 7
        assert "--ca-file" in told
        assert predict("--ca-file", str(tmp_path / "nowhere"))[0] == 3


def test_a_broken_renewal_is_told_and_the_old_certificate_serves_on(
    home: Path, tmp_path: Path, authority: Authority
) -> None:
    files = authority.issue(tmp_path, "server")
    with serving(home, "line", *options(files), environ=QUICK) as running:
        files[0].write_text("nonsense")
        until(lambda: "serving on with the TLS files read before" in running.errors.read_text(), 60)
        connection = connect(running, authority)
        assert ask(connection) == 200
        assert served_by(connection) == "server"
        connection.close()


def test_only_clients_with_a_certificate_are_let_in(home: Path, tmp_path: Path, authority: Authority) -> None:
    clients = new_authority(tmp_path, "clients")
    files = authority.issue(tmp_path, "server")
    with serving(home, "line", *options(files), "--tls-client-ca", str(clients.file)) as running:
        connection = connect(running, authority, clients.issue(tmp_path, "billing", client=True))
        assert ask(connection) == 200
        connection.close()
        for stranger in (None, authority.issue(tmp_path, "stranger", client=True)):
            turned_away(connect(running, authority, stranger))
        turned_away(http.client.HTTPConnection(running.address, timeout=30))  # no TLS at all
        assert running.process.poll() is None


def test_a_client_certificate_stands_for_a_key(home_copy: Path, tmp_path: Path, authority: Authority) -> None:
    clients = new_authority(tmp_path, "clients")
    with open_home(home_copy) as place:
        create_key(place, "billing", scopes=("infer",), models=("line",), why="test")
        _, secret = create_key(place, "scraper", scopes=("metrics",), why="test")
    more = [*options(authority.issue(tmp_path, "server")), "--tls-client-ca", str(clients.file)]
    with serving(home_copy, *more, environ={"FAIRWAY_TLS_CLIENT_NAMES": "key"}) as running:

        def statuses(name: str, *paths: str, **headers: str) -> list[int]:
            files = tmp_path / f"{name}.crt", tmp_path / f"{name}.key"
            if not files[0].exists():
                clients.issue(tmp_path, name, client=True)
            with closing(connect(running, authority, files)) as connection:
                return [ask(connection, path, **headers) for path in paths]

        line, shop, unnamed = "/v2/models/line/infer", "/v2/models/shop/infer", "/invocations"
        assert statuses("billing", line, line, shop, line) == [200, 200, 403, 200]
        assert statuses("nobody", line, unnamed) == [401, 401]
        assert statuses("billing", line, X_API_Key=secret) == [403]  # a secret that is sent counts
        assert statuses("billing", line, X_API_Key="fw_wrong") == [401]


def test_files_that_are_no_good_are_told_before_anything_listens(
    home: Path, tmp_path: Path, authority: Authority
) -> None:
    certificate, _ = authority.issue(tmp_path, "server")
    _, other = authority.issue(tmp_path, "other")
    code, told = refused(home, "line", *options((certificate, other)))
    assert (code, told["code"]) == (1, "settings_error")
    assert "is not the key of the certificate" in told["error"]


def test_beyond_loopback_with_keys_and_a_warning_without_tls(
    home_copy: Path, tmp_path: Path, authority: Authority
) -> None:
    code, told = refused(home_copy, "line", "--host", "0.0.0.0")
    assert (code, told["code"]) == (1, "insecure_binding")
    assert "fairway keys create" in told["error"]
    with pytest.raises(SystemExit):
        main(["keys", "create", "app", "--home", str(home_copy)])
    with serving(home_copy, "line", "--host", "0.0.0.0") as running:
        assert "without TLS" in running.errors.read_text()
    with serving(
        home_copy, "line", "--host", "0.0.0.0", *options(authority.issue(tmp_path, "server"))
    ) as running:
        assert running.errors.read_text() == ""
