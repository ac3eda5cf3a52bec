"""Sessions as cookies that only this server can make: the id of the key that logged in, encrypted and signed (Fernet).

Nothing is kept on the server. A session ends with its time, and with its key: which is looked up with every request.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken

from fairway.core.errors import SettingsError
from fairway.stores.disk import disk_errors, file_lock, write_whole

COOKIE = "fairway_session"
_FILE = "control.key"
_LEAST_KEY = 16


class Sessions:
    def __init__(self, secret: bytes, *, seconds: float) -> None:
        """`secret` is any text that nobody else knows; `seconds` is how long a session lasts."""
        self._key = hashlib.sha256(b"fairway session\0" + secret).digest()
        self._fernet = Fernet(base64.urlsafe_b64encode(self._key))
        self.seconds = seconds

    def begin(self, identity: str, now: float) -> str:
        """The cookie's value for the key with the id `identity`; `now` is seconds since 1970."""
        return self._fernet.encrypt_at_time(identity.encode(), int(now)).decode()

    def read(self, cookie: str, now: float) -> str | None:
        """The id of the key; None for a cookie that is over, forged or damaged."""
        try:
            return self._fernet.decrypt_at_time(cookie.encode(), int(self.seconds), int(now)).decode()
        except (InvalidToken, UnicodeError, ValueError):
            return None

    def form_token(self, cookie: str) -> str:
        """What a form of this session carries: another site can neither read nor guess it."""
        return hmac.new(self._key, b"form\0" + cookie.encode(), hashlib.sha256).hexdigest()

    def is_form_token(self, cookie: str, token: str) -> bool:
        return hmac.compare_digest(self.form_token(cookie).encode(), token.encode())


def session_secret(home: Path, configured: str) -> bytes:
    """What sessions are signed with: `configured`, or a secret that is made once and kept in the home for its owner
    alone. SettingsError for one too short to be a secret."""
    if configured:
        if len(configured) < _LEAST_KEY:
            raise SettingsError(f"control.session_key is shorter than {_LEAST_KEY} characters.")
        return configured.encode()
    path = home / _FILE
    with disk_errors("keep the key of sessions", home):
        home.mkdir(parents=True, exist_ok=True)
        with file_lock(home / f"{_FILE}.lock", timeout_seconds=10.0):
            if not path.exists():
                write_whole(path, base64.urlsafe_b64encode(os.urandom(32)), mode=0o600)
            return path.read_bytes()
