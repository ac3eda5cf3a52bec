"""The other side of every channel: an HTTP receiver that behaves as it is told, a mail server, and Alertmanager."""

import asyncio
import json
import shutil
import socket
import ssl
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP as SmtpServer
from aiosmtpd.smtp import AuthResult, Envelope, LoginPassword, Session

from tests.services import free_port

_INSTALLER = Path(__file__).parent.parent / "scripts" / "services.sh"


@dataclass
class Receiver:
    """What arrived, and how to answer."""

    bodies: list[bytes] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    status: int = 200
    answer: bytes = b"ok"
    answer_headers: dict[str, str] = field(default_factory=dict)
    hangs: threading.Event | None = None
    """Answers only when this is set."""
    url: str = ""

    @property
    def messages(self) -> list[dict[str, Any]]:
        return [json.loads(body) for body in self.bodies]


@contextmanager
def receiving(context: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    """A receiver on a free port; over TLS with a context."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if receiver.hangs is not None:
                receiver.hangs.wait(30)
            receiver.bodies.append(body)
            receiver.paths.append(self.path)
            receiver.headers.append({name.lower(): value for name, value in self.headers.items()})
            try:
                self.send_response(receiver.status)
                for name, value in receiver.answer_headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(receiver.answer)))
                self.end_headers()
                self.wfile.write(receiver.answer)
            except OSError:
                pass  # the sender has given up

        def log_message(self, format: str, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            pass  # senders that do not like our certificate

    server = Server(("127.0.0.1", 0), Handler)
    scheme = "http"
    if context is not None:
        scheme = "https"
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    receiver.url = f"{scheme}://localhost:{server.server_address[1]}/hook?key=s3cret"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield receiver
    if receiver.hangs is not None:
        receiver.hangs.set()
    server.shutdown()
    server.server_close()


@contextmanager
def dripping(first: bytes = b"", drop: bytes = b"x", seconds: float = 0.05) -> Iterator[int]:
    """A server that never ends what it says: `first`, then `drop` again and again. Its port."""
    stop = threading.Event()

    def talk(connection: socket.socket) -> None:
        with connection:
            try:
                connection.sendall(first)
                while not stop.wait(seconds):
                    connection.sendall(drop)
            except OSError:
                pass

    def accept(listener: socket.socket) -> None:
        while not stop.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=talk, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        accepting = threading.Thread(target=accept, args=(listener,), daemon=True)
        accepting.start()
        yield int(listener.getsockname()[1])
        stop.set()
        listener.shutdown(socket.SHUT_RDWR)
        accepting.join()  # it must not accept from whatever gets this one's number next


@dataclass
class MailServer:
    """aiosmtpd, with what it got."""

    port: int
    mails: list[Envelope] = field(default_factory=list)
    sessions: list[Session] = field(default_factory=list)
    refuse: dict[str, str] = field(default_factory=dict)
    """Recipient -> the answer it gets."""
    refuse_data: str = ""
    answer_after: float = 0.0
    """Seconds between the whole mail and the answer to it."""

    async def handle_RCPT(
        self, server: SmtpServer, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address in self.refuse:
            return self.refuse[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SmtpServer, session: Session, envelope: Envelope) -> str:
        if self.refuse_data:
            return self.refuse_data
        self.mails.append(envelope)
        self.sessions.append(session)
        await asyncio.sleep(self.answer_after)
        return "250 taken"


class _Mail(Controller):
    def __init__(self, server: MailServer, options: dict[str, Any]) -> None:
        self._options = options
        super().__init__(server, hostname="127.0.0.1", port=server.port)

    def factory(self) -> SmtpServer:
        return SmtpServer(self.handler, **self._options)


@contextmanager
def mail_server(
    context: ssl.SSLContext | None = None, users: dict[str, str] | None = None
) -> Iterator[MailServer]:
    """With a context it offers STARTTLS; with users it wants one of them, and only over TLS."""
    options: dict[str, Any] = {"hostname": "localhost"}
    if context is not None:
        options |= {"tls_context": context, "require_starttls": True}
    if users is not None:

        def check(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
            is_good = (
                isinstance(data, LoginPassword) and users.get(data.login.decode()) == data.password.decode()
            )
            return AuthResult(success=is_good, handled=is_good)

        options |= {"authenticator": check, "auth_required": True}
    server = MailServer(free_port())
    controller = _Mail(server, options)
    controller.start()
    yield server
    controller.stop()


def program(name: str) -> str:
    """Where a program is. The installer is asked for one that is missing; then it is a failure, never skipped."""
    found = shutil.which(name)
    if found is None:
        done = subprocess.run([_INSTALLER], capture_output=True, text=True, check=False)
        found = shutil.which(name)
        if found is None:
            pytest.fail(f"No {name} for the tests.\n{done.stderr}", pytrace=False)
    return found


@contextmanager
def running(command: list[str], ready: str, log: Path, seconds: float = 60.0) -> Iterator[None]:
    """A server process, from when `ready` answers 200 until the end of the block."""
    with log.open("ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + seconds
        while not _answers(ready):
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"{command[0]} does not start.\n{log.read_text()[-3000:]}", pytrace=False)
            time.sleep(0.05)
        yield
    finally:
        process.kill()
        process.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return answer.status == 200
    except OSError:
        return False


@contextmanager
def alertmanager(folder: Path) -> Iterator[str]:
    """The address of a real Alertmanager."""
    port = free_port()
    (folder / "alertmanager.yml").write_text("route: {receiver: nobody}\nreceivers: [{name: nobody}]\n")
    command = [
        program("prometheus-alertmanager"),
        f"--config.file={folder}/alertmanager.yml",
        f"--storage.path={folder}/data",
        f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",
    ]
    url = f"http://127.0.0.1:{port}"
    with running(command, f"{url}/-/ready", folder / "alertmanager.log"):
        yield url


def fetched(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.load(answer)
