"""TLS of the ports: certificate files made into contexts for servers, and read again when they change.

Changed files are made into whole new contexts first. Only when that worked do new connections get them, with everything
they say: certificate, key, authorities, session tickets. A connection that stands lives on with what it began with. What
cannot be used is logged, once, and the old files' content goes on serving.
"""

from __future__ import annotations

import logging
import os
import ssl
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from fairway.core.errors import SettingsError
from fairway.core.settings import TlsSettings

_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_ATTEMPTS = 5

logger = logging.getLogger("fairway.serving")

Signature = tuple[tuple[int, int, int] | None, ...]


class ReloadingContext(ssl.SSLContext):
    """A context for servers that hands each handshake to another, the `current` one."""

    current: ssl.SSLContext

    def wrap_bio(self, *arguments: Any, **named: Any) -> ssl.SSLObject:
        return self.current.wrap_bio(*arguments, **named)

    def wrap_socket(self, *arguments: Any, **named: Any) -> ssl.SSLSocket:
        return self.current.wrap_socket(*arguments, **named)


class Tls:
    """The contexts stay the same objects; what new connections get from them changes with `refresh`."""

    def __init__(self, settings: TlsSettings) -> None:
        """Reads the files. `SettingsError` names the one that cannot be used and says why."""
        self._settings = settings
        self._guard = threading.Lock()
        self._told: tuple[object, str] | None = None
        self.context = ReloadingContext(ssl.PROTOCOL_TLS_SERVER)
        """For the HTTP port."""
        self.grpc_context = ReloadingContext(ssl.PROTOCOL_TLS_SERVER)
        """For the gRPC port, whose clients insist on agreeing on HTTP/2."""
        self._signature = _signature(settings)
        for attempt in range(_ATTEMPTS):
            try:
                self._use(*_read(settings))
            except SettingsError:
                if attempt == _ATTEMPTS - 1 or self._signature == _signature(settings):
                    raise
            else:
                if self._signature == _signature(settings):
                    break
            self._signature = _signature(settings)  # they are just being replaced

    def refresh(self) -> bool:
        """Reads the files again if they changed. True when new connections get something new from now on.

        Safe from any thread.
        """
        with self._guard:
            found = _signature(self._settings)
            if found == self._signature:
                return False
            try:
                contexts = _read(self._settings)
            except (
                SettingsError
            ) as error:  # tried again: it may have been no file that was wrong, but this process
                trouble = found, str(error)
                if trouble != self._told and found == _signature(
                    self._settings
                ):  # or they are just being replaced
                    self._told = trouble
                    logger.error("serving on with the TLS files read before: %s", error)
                return False
            if found != _signature(self._settings):
                return False  # parts of two states may be in it: look again
            self._signature = found
            self._use(*contexts)
            logger.warning("TLS files changed: new connections get %s", self._settings.certificate)
            return True

    def client_name(self, certificate: Mapping[str, Any] | None) -> str | None:
        """The name of the key that a verified client certificate, as `ssl.SSLObject.getpeercert` gives it, stands
        for. None where `tls.client_names` does not say so, or the certificate has not exactly one common name."""
        if self._settings.client_names != "key" or not certificate:
            return None
        names = [
            value for part in certificate.get("subject", ()) for field, value in part if field == "commonName"
        ]
        return names[0] if len(names) == 1 else None

    def _use(self, http: ssl.SSLContext, grpc: ssl.SSLContext) -> None:
        self.context.current, self.grpc_context.current = http, grpc


def open_tls(settings: TlsSettings) -> Tls | None:
    """None when no certificate is set. `SettingsError` when the settings do not go together or a file is no good."""
    if settings.client_names and not settings.client_ca:
        raise SettingsError(
            "tls.client_names has no meaning without tls.client_ca: no client is asked for a certificate."
        )
    if not settings.certificate:
        left = [name for name in ("key", "client_ca") if getattr(settings, name)]
        if left:
            raise SettingsError(
                f"tls.{left[0]} is set, and tls.certificate is not.",
                hint="Give the certificate too: --tls-cert FILE",
            )
        return None
    return Tls(settings)


def _read(settings: TlsSettings) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Contexts for HTTP and for gRPC."""
    return _context(settings, "http/1.1"), _context(settings, "h2")


def _context(settings: TlsSettings, protocol: str) -> ssl.SSLContext:
    certificate, client_ca = settings.certificate, settings.client_ca
    key = settings.key or certificate
    for field, path in (("certificate", certificate), ("key", key), ("client_ca", client_ca)):
        if path:
            _check_readable(field, path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS[settings.minimum_version]
    context.set_alpn_protocols([protocol])
    try:
        context.load_cert_chain(certificate, key, password=lambda: _encrypted(key))
    except (ssl.SSLError, OSError) as error:
        raise SettingsError(_meaning(certificate, key, error)) from error
    if client_ca:
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            context.load_verify_locations(client_ca)
        except (ssl.SSLError, OSError) as error:
            raise SettingsError(
                f"{client_ca} (tls.client_ca) holds no certificate in PEM that can be read ({_reason(error)})."
            ) from error
    return context


def _check_readable(field: str, path: str) -> None:
    """OpenSSL's own words do not say which file it was."""
    try:
        Path(path).open("rb").close()
    except OSError as error:
        raise SettingsError(
            f"{path} (tls.{field}) cannot be read: {error.strerror or error}.",
            hint="Check the path and that this user may read it.",
        ) from error


def _encrypted(key: str) -> NoReturn:
    raise SettingsError(
        f"{key} (tls.key) is encrypted, and nobody can type its passphrase into a server.",
        hint=f"Write it without one, readable by this user alone: openssl pkey -in {key} -out plain.key",
    )


def _meaning(certificate: str, key: str, error: OSError) -> str:
    reason = _reason(error)
    if "mismatch" in reason:
        return f"{key} (tls.key) is not the key of the certificate {certificate} (tls.certificate)."
    return f"{certificate} (tls.certificate) and {key} (tls.key) are not a certificate and its key in PEM ({reason})."


def _reason(error: OSError) -> str:
    reason = getattr(error, "reason", None) or error.strerror or str(error)
    return str(reason).replace("_", " ").lower()


def _signature(settings: TlsSettings) -> Signature:
    """What tells one state of the files from another, links followed."""
    return tuple(_stat(path) for path in (settings.certificate, settings.key, settings.client_ca) if path)


def _stat(path: str) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
