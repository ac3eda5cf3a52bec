"""Certificates from files: real handshakes, changes under live connections, files that are no good."""

import asyncio
import errno
import logging
import os
import shutil
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import pytest
import uvloop

from fairway.core.errors import SettingsError
from fairway.core.settings import TlsSettings
from fairway.security.tls import Tls, open_tls
from tests.certificates import Authority, new_authority


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return new_authority(tmp_path)


@pytest.fixture
def settings(tmp_path: Path, authority: Authority) -> TlsSettings:
    certificate, key = authority.issue(tmp_path, "server")
    return TlsSettings(certificate=str(certificate), key=str(key))


def trusting(authority: Authority, client: tuple[Path, Path] | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=authority.file)
    if client is not None:
        context.load_cert_chain(*client)
    return context


def place(files: tuple[Path, Path], settings: TlsSettings) -> None:
    """Puts other files where the settings look, as a renewal does: key and certificate, one after the other."""
    for source, destination in zip(files, (settings.certificate, settings.key), strict=True):
        beside = Path(destination + ".new")
        shutil.copy(source, beside)
        os.replace(beside, destination)


def handshake(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext, session: ssl.SSLSession | None = None
) -> ssl.SSLObject:
    """The client's side of a handshake in memory."""
    a, b = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(a, b, server_hostname="localhost", session=session)
    server = server_context.wrap_bio(b, a, server_side=True)
    for _ in range(4):
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                pass
    return client


class Echo(asyncio.Protocol):
    """Answers each message with itself and the client's key name."""

    def __init__(self, tls: Tls) -> None:
        self._tls = tls

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._client = self._tls.client_name(transport.get_extra_info("peercert"))

    def data_received(self, data: bytes) -> None:
        self._transport.write(data + f" {self._client}".encode())


class Connection:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @property
    def server(self) -> str:
        """The common name of the server's certificate."""
        (((_, name),),) = self._writer.get_extra_info("peercert")["subject"]
        return str(name)

    @property
    def version(self) -> str:
        return str(self._writer.get_extra_info("ssl_object").version())

    async def ask(self) -> bytes:
        self._writer.write(b"hello")
        return (
            await self._reader.readexactly(5)
            + await self._reader.readuntil(b" ")
            + await self._reader.read(99)
        )

    async def close(self) -> None:
        self._writer.close()
        await self._writer.wait_closed()


Connect = Callable[[ssl.SSLContext], Awaitable[Connection]]


def serving(tls: Tls, talk: Callable[[Connect], Awaitable[None]], loop: str = "uvloop") -> None:
    """Runs `talk` beside a server, on the event loop that workers use."""

    async def run() -> None:
        server = await asyncio.get_running_loop().create_server(
            lambda: Echo(tls), "127.0.0.1", 0, ssl=tls.context
        )
        port = server.sockets[0].getsockname()[1]

        async def connect(context: ssl.SSLContext) -> Connection:
            return Connection(*await asyncio.open_connection("127.0.0.1", port, ssl=context))

        async with server:
            await talk(connect)

    factory = uvloop.new_event_loop if loop == "uvloop" else asyncio.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(asyncio.wait_for(run(), 60))


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_new_connections_get_a_new_certificate_and_those_that_stand_live_on(
    loop: str, settings: TlsSettings, authority: Authority, tmp_path: Path
) -> None:
    tls = open_tls(settings)
    assert tls is not None
    renewed = authority.issue(tmp_path, "renewed")

    async def talk(connect: Connect) -> None:
        context = trusting(authority)
        before = await connect(context)
        assert before.server == "server"
        assert not tls.refresh()
        place(renewed, settings)
        assert tls.refresh()
        assert not tls.refresh()
        after = await connect(context)
        assert (before.server, after.server) == ("server", "renewed")
        for connection in (before, after):
            assert (await connection.ask()).startswith(b"hello")
            await connection.close()

    serving(tls, talk, loop)


def test_files_that_are_no_good_change_nothing_and_are_told_once(
    settings: TlsSettings, authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tls = Tls(settings)
    other = authority.issue(tmp_path, "other")
    renewed = authority.issue(tmp_path, "renewed")

    async def talk(connect: Connect) -> None:
        async def served_by() -> str:
            connection = await connect(trusting(authority))
            await connection.close()
            return connection.server

        def told() -> str:
            assert not tls.refresh()
            assert not tls.refresh()  # the same trouble: not told again
            [record] = caplog.records
            caplog.clear()
            assert record.levelno == logging.ERROR
            return record.message

        shutil.copy(other[0], settings.certificate)  # its key is not there yet
        assert "is not the key of the certificate" in told()
        assert await served_by() == "server"
        Path(settings.certificate).write_bytes(b"-----BEGIN")
        assert "not a certificate and its key in PEM" in told()
        assert await served_by() == "server"
        Path(settings.key).unlink()
        assert "cannot be read: No such file" in told()
        assert await served_by() == "server"
        place(renewed, settings)
        assert tls.refresh()
        assert await served_by() == "renewed"

    serving(tls, talk)


def test_a_new_certificate_that_could_not_be_read_for_a_moment_is_read_the_next_time(
    settings: TlsSettings, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A busy server had no file to spare, or the files got their permissions last: they have not changed since."""
    tls = Tls(settings)
    place(authority.issue(tmp_path, "renewed"), settings)

    def no_file(*arguments: object) -> NoReturn:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", no_file)
        assert not tls.refresh()
    assert tls.refresh()
    assert not tls.refresh()


def test_a_client_must_show_a_certificate_of_the_authorities(
    settings: TlsSettings, authority: Authority, tmp_path: Path
) -> None:
    clients = new_authority(tmp_path, "clients")
    strangers = new_authority(tmp_path, "strangers")
    known = clients.issue(tmp_path, "billing", client=True)
    stranger = strangers.issue(tmp_path, "stranger", client=True)
    settings = msgspec.structs.replace(settings, client_ca=str(clients.file), client_names="key")
    tls = Tls(settings)

    async def talk(connect: Connect) -> None:
        async def refused(context: ssl.SSLContext) -> None:
            with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
                await (
                    await connect(context)
                ).ask()  # in TLS 1.3 the refusal comes after the client's handshake

        welcome = await connect(trusting(authority, known))
        assert await welcome.ask() == b"hello billing"
        await refused(trusting(authority))
        await refused(trusting(authority, stranger))
        server_only = authority.issue(tmp_path, "not-a-client")
        await refused(trusting(authority, server_only))
        clients.file.write_bytes(strangers.pem)  # other authorities from now on
        assert tls.refresh()
        assert await welcome.ask() == b"hello billing"
        await refused(trusting(authority, known))
        admitted = await connect(trusting(authority, stranger))
        assert await admitted.ask() == b"hello stranger"
        for connection in (welcome, admitted):
            await connection.close()

    serving(tls, talk)


def test_a_session_of_before_a_change_is_not_resumed(
    settings: TlsSettings, authority: Authority, tmp_path: Path
) -> None:
    """A client let in by authorities that are gone must not come back with its session ticket."""
    clients = new_authority(tmp_path, "clients")
    known = trusting(authority, clients.issue(tmp_path, "billing", client=True))
    known.maximum_version = ssl.TLSVersion.TLSv1_2  # whose session is there once the handshake is
    tls = Tls(msgspec.structs.replace(settings, client_ca=str(clients.file)))

    first = handshake(known, tls.context)
    assert handshake(known, tls.context, first.session).session_reused
    clients.file.write_bytes(new_authority(tmp_path, "others").pem)
    assert tls.refresh()
    with pytest.raises(ssl.SSLError):
        handshake(known, tls.context, first.session)


def test_each_port_agrees_on_its_protocol_before_and_after_a_change(
    settings: TlsSettings, authority: Authority, tmp_path: Path
) -> None:
    tls = Tls(settings)
    client = trusting(authority)
    client.set_alpn_protocols(["h2", "http/1.1"])
    for name in ("server", "renewed"):
        for context, protocol in ((tls.context, "http/1.1"), (tls.grpc_context, "h2")):
            shaken = handshake(client, context)
            assert shaken.selected_alpn_protocol() == protocol
            certificate = shaken.getpeercert()
            assert certificate is not None
            assert certificate["subject"] == ((("commonName", name),),)
        place(authority.issue(tmp_path, "renewed"), settings)
        tls.refresh()


@pytest.mark.parametrize(("minimum", "spoken"), [("1.2", "TLSv1.2"), ("1.3", None)])
def test_old_versions_are_not_spoken(
    minimum: Any, spoken: str | None, settings: TlsSettings, authority: Authority
) -> None:
    tls = Tls(msgspec.structs.replace(settings, minimum_version=minimum))

    async def talk(connect: Connect) -> None:
        old = trusting(authority)
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        if spoken is None:
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await connect(old)
        else:
            connection = await connect(old)
            assert connection.version == spoken
            await connection.close()
        new = await connect(trusting(authority))
        assert new.version == "TLSv1.3"
        await new.close()

    serving(tls, talk)


def test_a_certificate_and_its_key_may_stand_in_one_file(
    settings: TlsSettings, authority: Authority, tmp_path: Path
) -> None:
    both = tmp_path / "both.pem"
    both.write_bytes(Path(settings.certificate).read_bytes() + Path(settings.key).read_bytes())
    tls = Tls(TlsSettings(certificate=str(both)))

    async def talk(connect: Connect) -> None:
        connection = await connect(trusting(authority))
        assert connection.server == "server"
        await connection.close()

    serving(tls, talk)


def test_what_cannot_be_used_is_said_at_the_start(
    settings: TlsSettings, authority: Authority, tmp_path: Path
) -> None:
    def refused(said: str, **changed: str) -> None:
        with pytest.raises(SettingsError, match=said):
            open_tls(msgspec.structs.replace(settings, **changed))

    (tmp_path / "empty").touch()
    _, locked = authority.issue(tmp_path, "locked", passphrase=b"secret")
    _, other = authority.issue(tmp_path, "other")
    refused(
        r"nowhere \(tls.certificate\) cannot be read: No such file", certificate=str(tmp_path / "nowhere")
    )
    refused(r"nowhere \(tls.client_ca\) cannot be read", client_ca=str(tmp_path / "nowhere"))
    refused(r"empty \(tls.certificate\).*PEM", certificate=str(tmp_path / "empty"))
    refused(r"empty \(tls.client_ca\) holds no certificate", client_ca=str(tmp_path / "empty"))
    refused(r"other.key \(tls.key\) is not the key of the certificate .*server.crt", key=str(other))
    refused(r"locked.key \(tls.key\) is encrypted.*openssl pkey", key=str(locked))
    refused("server.crt .*PEM", key=settings.certificate)
    refused("tls.client_names has no meaning without tls.client_ca", client_names="key")
    refused("tls.key is set, and tls.certificate is not", certificate="")
    assert open_tls(TlsSettings()) is None


def test_a_certificate_stands_for_a_key_only_where_that_is_said(
    settings: TlsSettings, authority: Authority
) -> None:
    subject = {"subject": ((("organizationName", "x"),), (("commonName", "billing"),))}
    twice = {"subject": ((("commonName", "a"),), (("commonName", "b"),))}
    off = Tls(msgspec.structs.replace(settings, client_ca=str(authority.file)))
    on = Tls(msgspec.structs.replace(settings, client_ca=str(authority.file), client_names="key"))
    assert off.client_name(subject) is None
    assert on.client_name(subject) == "billing"
    for nobody in (None, {}, {"subject": ()}, twice):
        assert on.client_name(nobody) is None
