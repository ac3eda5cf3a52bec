"""Mail through a real server: STARTTLS, names and passwords, and servers that refuse or drip."""

import socket
import ssl
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

import pytest

from fairway.core.alert_settings import ChannelSettings
from fairway.core.errors import DeliveryFailed
from fairway.core.incident import Finding
from fairway.monitoring.channels.smtp import SmtpChannel
from tests.certificates import Authority, new_authority
from tests.receivers import dripping, mail_server
from tests.unit.monitoring.messages import incident, message


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return new_authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def context(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    certificate, key = authority.issue(tmp_path_factory.mktemp("server"), "server")
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(certificate, key)
    return made


def channel(port: int, environ: dict[str, str] | None = None, **values: Any) -> SmtpChannel:
    settings = {
        "host": "localhost",
        "port": port,
        "sender": "fairway@example.org",
        "recipients": ("ann@example.org", "bob@example.org"),
        "timeout_seconds": 10.0,
        **values,
    }
    return SmtpChannel(ChannelSettings(kind="smtp", **settings), environ or {}, address="https://f.example")


def test_a_mail_over_starttls_with_a_password(
    authority: Authority, context: ssl.SSLContext, tmp_path: Path
) -> None:
    (tmp_path / "password").write_text("password\n")
    with mail_server(context, {"fairway": "password"}) as server:
        made = channel(
            server.port,
            ca_file=str(authority.file),
            username="fairway",
            password=f"file:{tmp_path}/password",
        )
        assert made.send(message()) == "taken for 2 of 2 recipients"
        assert made.send(message("resolved")) == "taken for 2 of 2 recipients"
    assert server.sessions[0].ssl is not None
    assert server.sessions[0].authenticated
    first, second = (message_from_bytes(mail.content, policy=policy.default) for mail in server.mails)
    assert server.mails[0].rcpt_tos == ["ann@example.org", "bob@example.org"]
    assert (
        first["subject"].strip() == "[critical] payments:3: drift in amount, country; performance (ROC AUC)"
    )
    assert second["subject"].startswith("Resolved: payments:3")
    assert first["message-id"] == "<3f0c1d2b4a.7.ops@fairway>"
    assert first["references"] == second["references"] == "<3f0c1d2b4a@fairway>"
    text = first.get_content()
    assert "- drift of amount: psi 0.41" in text
    assert "https://f.example/incidents/3f0c1d2b4a" in text


def test_headers_cannot_be_forged() -> None:
    """What reaches a channel has been through `windows.printable`; even if it had not, no header comes of it."""
    evil = incident(findings=(Finding(kind="drift", field="x\r\nBcc: eve@example.org\r\n\r\nhello"),))
    with mail_server() as server:
        channel(server.port, security="none").send(message(incident=evil))
    (mail,) = (message_from_bytes(mail.content, policy=policy.default) for mail in server.mails)
    assert mail["bcc"] is None
    assert "Bcc: eve" in mail["subject"]
    assert server.mails[0].rcpt_tos == ["ann@example.org", "bob@example.org"]


def test_it_is_never_sent_in_the_clear_when_tls_was_asked_for(authority: Authority) -> None:
    with mail_server() as server:
        with pytest.raises(DeliveryFailed, match="does not offer"):
            channel(server.port, ca_file=str(authority.file)).send(message())
        with pytest.raises(DeliveryFailed, match="cannot be reached"):
            channel(server.port, security="tls").send(message())
        assert server.mails == []
        assert channel(server.port, security="none").send(message()).startswith("taken")


def test_a_certificate_nobody_vouches_for(context: ssl.SSLContext) -> None:
    with mail_server(context) as server, pytest.raises(DeliveryFailed, match="certificate is not trusted"):
        channel(server.port).send(message())


def test_a_wrong_password_is_not_shown(authority: Authority, context: ssl.SSLContext) -> None:
    with mail_server(context, {"fairway": "right"}) as server:
        made = channel(
            server.port, {"PW": "wr0ng"}, ca_file=str(authority.file), username="fairway", password="env:PW"
        )
        with pytest.raises(DeliveryFailed, match="refuses the name and password") as error:
            made.send(message())
    assert "wr0ng" not in str(error.value)
    assert error.value.permanent is False


def test_recipients_that_are_refused() -> None:
    with mail_server() as server:
        server.refuse = {"ann@example.org": "550 no such user"}
        assert channel(server.port, security="none").send(message()) == "taken for 1 of 2 recipients"
        server.refuse["bob@example.org"] = "550 no"
        with pytest.raises(DeliveryFailed, match="none of the recipients") as error:
            channel(server.port, security="none").send(message())
        assert error.value.permanent is True
        server.refuse["bob@example.org"] = "450 mailbox busy"
        with pytest.raises(DeliveryFailed) as error:
            channel(server.port, security="none").send(message())
        assert error.value.permanent is False


@pytest.mark.parametrize(("answer", "permanent"), [("554 looks like spam", True), ("452 disk full", False)])
def test_a_mail_that_is_refused(answer: str, permanent: bool) -> None:
    with mail_server() as server:
        server.refuse_data = answer
        with pytest.raises(DeliveryFailed, match=answer) as error:
            channel(server.port, security="none").send(message())
    assert error.value.permanent is permanent


@pytest.mark.parametrize("first", [b"", b"220-hello\r\n", b"220 hi\r\n250-x\r\n"])
def test_a_server_that_drips(first: bytes) -> None:
    with (
        dripping(first, b"250-x\r\n") as port,
        pytest.raises(DeliveryFailed, match=r"within 0\.4 s|cannot be"),
    ):
        channel(port, security="none", timeout_seconds=0.4).send(message())


def test_a_server_that_never_says_whether_it_took_the_mail() -> None:
    """It is sent again, under the same Message-ID."""
    told = message()
    with mail_server() as server:
        server.answer_after = 60.0
        with pytest.raises(DeliveryFailed, match=r"did not take the mail within 0\.5 s") as error:
            channel(server.port, security="none", timeout_seconds=0.5).send(told)
        assert error.value.permanent is False
        server.answer_after = 0.0
        channel(server.port, security="none").send(told)
    first, again = (message_from_bytes(mail.content or b"", policy=policy.default) for mail in server.mails)
    assert first["Message-ID"] == again["Message-ID"]


def test_a_server_that_is_not_there() -> None:
    with pytest.raises(DeliveryFailed, match="localhost:1 cannot be reached: Connection refused"):
        channel(1, security="none").send(message())


@pytest.mark.parametrize("security", ["none", "starttls", "tls"])
def test_a_server_that_says_nothing_at_all(security: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        made = channel(silent.getsockname()[1], host="127.0.0.1", security=security, timeout_seconds=0.2)
        with pytest.raises(DeliveryFailed, match=r"did not take the mail within 0\.2 s"):
            made.send(message())


def test_a_tls_handshake_that_never_ends_is_cut() -> None:
    """A record of the greatest length, a byte at a time: no single read takes long."""
    with (
        dripping(b"\x16\x03\x03\x40\x00") as port,
        pytest.raises(DeliveryFailed, match=r"did not take the mail within 0\.4 s"),
    ):
        channel(port, host="127.0.0.1", security="tls", timeout_seconds=0.4).send(message())
