import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fairway.control.web.session import Sessions, session_secret
from fairway.core.errors import SettingsError


def test_a_session_says_which_key_until_it_is_over() -> None:
    sessions = Sessions(b"secret", seconds=60)
    cookie = sessions.begin("abc", 1000.0)
    assert sessions.read(cookie, 1059.0) == "abc"
    assert sessions.read(cookie, 1061.0) is None
    assert "abc" not in cookie
    for wrong in ("", "x", cookie[:-3], "A" + cookie, "é"):
        assert sessions.read(wrong, 1000.0) is None


def test_sessions_of_another_secret_are_none() -> None:
    cookie = Sessions(b"one", seconds=60).begin("abc", 1000.0)
    assert Sessions(b"two", seconds=60).read(cookie, 1000.0) is None
    assert Sessions(b"one", seconds=60).read(cookie, 1000.0) == "abc"


def test_a_forms_token_belongs_to_one_session() -> None:
    sessions = Sessions(b"secret", seconds=60)
    first, second = sessions.begin("abc", 1000.0), sessions.begin("abc", 1001.0)
    assert sessions.is_form_token(first, sessions.form_token(first))
    assert not sessions.is_form_token(second, sessions.form_token(first))
    assert not sessions.is_form_token(first, "")
    assert not sessions.is_form_token(first, "é")


def test_the_secret_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with ThreadPoolExecutor(4) as threads:
        found = set(threads.map(lambda _: session_secret(home, ""), range(8)))
    assert len(found) == 1
    assert len(found.pop()) >= 32
    assert stat.S_IMODE(os.stat(home / "control.key").st_mode) == 0o600


def test_a_secret_of_the_settings_is_used_if_it_is_one(tmp_path: Path) -> None:
    assert session_secret(tmp_path, "x" * 16) == b"x" * 16
    with pytest.raises(SettingsError, match="shorter than 16"):
        session_secret(tmp_path, "short")
