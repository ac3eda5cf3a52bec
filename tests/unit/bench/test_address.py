"""What a URL means."""

import pytest

from fairway.bench.address import Address, model_path, read_address
from fairway.core.errors import InvalidInput


@pytest.mark.parametrize(
    ("url", "model", "expected"),
    [
        ("http://h:1", "", ("http", "h", 1, "", "", "")),
        ("http://h", "m", ("http", "h", 80, "m", "", "")),
        ("https://h/", "m:3", ("https", "h", 443, "m", "3", "")),
        ("http://h:1/v2/models/a%20b", "", ("http", "h", 1, "a b", "", "")),
        ("http://h:1/v2/models/a/infer", "", ("http", "h", 1, "a", "", "")),
        ("http://h:1/v2/models/a/versions/2", "a", ("http", "h", 1, "a", "2", "")),
        ("http://h:1/v2/models/a/versions/2/infer", "", ("http", "h", 1, "a", "2", "")),
        ("http://h:1/v1/models/a:predict", "", ("http", "h", 1, "", "", "/v1/models/a:predict")),
        ("http://h:1/invocations?x=1", "", ("http", "h", 1, "", "", "/invocations?x=1")),
        ("grpc://h:1", "m", ("grpc", "h", 1, "m", "", "")),
        ("grpc://h/a/2", "", ("grpc", "h", 8081, "a", "2", "")),
        ("grpcs://[::1]:5/a", "", ("grpcs", "::1", 5, "a", "", "")),
    ],
)
def test_addresses(url: str, model: str, expected: tuple[str, str, int, str, str, str]) -> None:
    found = read_address(url, model)
    assert (found.protocol, found.host, found.port, found.model, found.version, found.path) == expected


@pytest.mark.parametrize(
    ("url", "model", "says"),
    [
        ("h:1", "", "not an address"),
        ("ftp://h", "", "not an address"),
        ("http://", "", "not an address"),
        ("http://h:notaport", "", "not an address"),
        ("grpc://h/a/b/c", "", "MODEL/VERSION"),
        ("http://h/v2/models/a", "b", "names the model 'a'"),
    ],
)
def test_what_is_no_address(url: str, model: str, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        read_address(url, model)


def test_addresses_as_text() -> None:
    assert Address(protocol="http", host="::1", port=80).root == "http://[::1]:80"
    assert model_path("a/b", "") == "/v2/models/a%2Fb"
    assert model_path("m", "2") == "/v2/models/m/versions/2"
