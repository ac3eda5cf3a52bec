"""One POST against receivers that are slow, sly or broken."""

import socket
import ssl
from pathlib import Path

import pytest

from fairway.core.errors import DeliveryFailed, SettingsError
from fairway.monitoring.channels.http import checked_url, post
from tests.certificates import new_authority
from tests.receivers import dripping, receiving


def test_what_is_sent_arrives() -> None:
    with receiving() as receiver:
        said = post(receiver.url, b'{"a":1}', {"X-Key": "k"}, timeout_seconds=5)
    assert said == "200 ok"
    assert receiver.bodies == [b'{"a":1}']
    assert receiver.paths == ["/hook?key=s3cret"]
    assert receiver.headers[0]["content-type"] == "application/json"
    assert receiver.headers[0]["x-key"] == "k"


@pytest.mark.parametrize(
    ("status", "permanent"),
    [
        (400, True),
        (413, True),
        (422, True),
        (401, False),
        (403, False),
        (404, False),
        (410, False),
        (408, False),
        (429, False),
        (500, False),
        (503, False),
    ],
)
def test_only_what_will_never_be_taken_is_permanent(status: int, permanent: bool) -> None:
    with receiving() as receiver:
        receiver.status, receiver.answer = status, b"no\r\n  such\x00 " + b"long" * 1000
        with pytest.raises(DeliveryFailed, match=f"answered {status}: no such") as error:
            post(receiver.url, b"{}", {}, timeout_seconds=5)
    assert error.value.permanent is permanent
    assert "s3cret" not in str(error.value)
    assert len(str(error.value)) < 400


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("120", 120.0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("soon", None),
        ("-5", None),
        ("9" * 500, None),
        ("", None),
    ],
)
def test_retry_after_is_a_number_or_a_date(header: str, seconds: float | None) -> None:
    with receiving() as receiver:
        receiver.status, receiver.answer_headers = 429, {"Retry-After": header}
        with pytest.raises(DeliveryFailed) as error:
            post(receiver.url, b"{}", {}, timeout_seconds=5)
    assert error.value.retry_after == seconds


def test_redirects_are_not_followed() -> None:
    """To the metadata of a cloud, say: a receiver does not choose where we send."""
    with receiving() as inside, receiving() as receiver:
        receiver.status, receiver.answer_headers = 307, {"Location": inside.url}
        with pytest.raises(DeliveryFailed, match="send us elsewhere"):
            post(receiver.url, b"{}", {}, timeout_seconds=5)
        assert inside.bodies == []


@pytest.mark.parametrize(
    ("first", "drop"),
    [
        (b"", b"\r\n"),
        (b"HTTP/1.1 200 OK\r\n", b"x: y\r\n"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n", b"x"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    ],
)
def test_the_time_is_for_all_of_it_however_slowly_it_drips(first: bytes, drop: bytes) -> None:
    with (
        dripping(first, drop) as port,
        pytest.raises(DeliveryFailed, match=r"within 0\.3 s|cannot be reached"),
    ):
        post(f"http://127.0.0.1:{port}/", b"{}", {}, timeout_seconds=0.3)


def test_one_that_never_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        for scheme in ("http", "https"):
            with pytest.raises(DeliveryFailed, match=r"within 0\.2 s"):
                post(f"{scheme}://127.0.0.1:{port}/s3cret", b"{}", {}, timeout_seconds=0.2)


def test_an_answer_without_an_end_is_cut() -> None:
    with receiving() as receiver:
        receiver.answer = b"x" * 10_000_000
        assert len(post(receiver.url, b"{}", {}, timeout_seconds=5)) <= 204


def test_what_is_no_http_and_what_is_not_there() -> None:
    with dripping(b"SSH-2.0-OpenSSH\r\n") as port, pytest.raises(DeliveryFailed, match="cannot be reached"):
        post(f"http://127.0.0.1:{port}/", b"{}", {}, timeout_seconds=2)
    with pytest.raises(DeliveryFailed, match="Connection refused"):
        post("http://127.0.0.1:1/s3cret", b"{}", {}, timeout_seconds=2)
    with pytest.raises(DeliveryFailed, match=r"nowhere\.invalid cannot be reached"):
        post("http://nowhere.invalid/s3cret", b"{}", {}, timeout_seconds=5)


def test_certificates_are_checked(tmp_path: Path) -> None:
    authority = new_authority(tmp_path)
    certificate, key = authority.issue(tmp_path, "server")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with receiving(context) as receiver:
        with pytest.raises(DeliveryFailed, match="certificate is not trusted"):
            post(receiver.url, b"{}", {}, timeout_seconds=5)
        assert receiver.bodies == []
        assert post(receiver.url, b"{}", {}, timeout_seconds=5, ca_file=str(authority.file)) == "200 ok"


@pytest.mark.parametrize(
    "url",
    [
        "", "example.org/x", "file:///etc/passwd", "ftp://h/x", "gopher://h", "http://", "http:///x", "http://h:99999/",
        "http://h:0/", "https://user:pw@h/", "http://h/a b", "http://h/\r\nX: y", "http://[::1", "javascript:alert(1)",
    ],
)  # fmt: skip
def test_addresses_that_are_not_sent_to(url: str) -> None:
    with pytest.raises(SettingsError) as error:
        checked_url(url)
    assert "pw" not in str(error.value)
