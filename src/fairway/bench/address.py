"""What the URL given to `fairway bench` means."""

from __future__ import annotations

from urllib.parse import quote, unquote, urlsplit

import msgspec

from fairway.core.errors import InvalidInput

_PORTS = {"http": 80, "https": 443, "grpc": 8081, "grpcs": 8081}


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """A server, and as much of the rest as the URL says: a model of the V2 protocol, or any other `path`."""

    protocol: str
    host: str
    port: int
    model: str = ""
    version: str = ""
    path: str = ""

    @property
    def root(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.protocol}://{host}:{self.port}"


def read_address(url: str, model: str = "") -> Address:
    """`http://host:port` (the model asked for, or the only one there), `.../v2/models/NAME[/versions/V][/infer]`, any
    other path (which needs a body of your own), or `grpc://host:port[/NAME[/VERSION]]`. `model` is `NAME[:VERSION]`.

    Raises InvalidInput.
    """
    parts = urlsplit(url)
    if parts.scheme not in _PORTS or not parts.hostname:
        raise InvalidInput(
            f"{url!r} is not an address.",
            hint="Give one such as http://127.0.0.1:8080 or grpc://127.0.0.1:8081.",
        )
    try:
        port = parts.port or _PORTS[parts.scheme]
    except ValueError as error:
        raise InvalidInput(f"{url!r} is not an address: {error}.") from None
    named, _, version = model.partition(":")
    pieces = [unquote(piece) for piece in parts.path.strip("/").split("/") if piece]
    path = ""
    if parts.scheme.startswith("grpc"):
        if len(pieces) > 2:
            raise InvalidInput(f"{url!r} is not grpc://HOST:PORT/MODEL/VERSION.")
        found = (*pieces, "", "")[:2]
    else:
        match pieces:
            case []:
                found = ("", "")
            case ["v2", "models", name] | ["v2", "models", name, "infer"]:
                found = (name, "")
            case ["v2", "models", name, "versions", given] | [
                "v2",
                "models",
                name,
                "versions",
                given,
                "infer",
            ]:
                found = (name, given)
            case _:
                found = ("", "")
                path = parts.path + (f"?{parts.query}" if parts.query else "")
    if named and found[0] and named != found[0]:
        raise InvalidInput(f"the URL names the model {found[0]!r}, --model names {named!r}.")
    return Address(
        protocol=parts.scheme,
        host=parts.hostname,
        port=port,
        model=named or found[0],
        version=version or found[1],
        path=path,
    )


def model_path(model: str, version: str) -> str:
    """V2's path of a model."""
    return f"/v2/models/{quote(model, safe='')}" + (f"/versions/{quote(version, safe='')}" if version else "")
