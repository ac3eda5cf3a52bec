"""Private values: what is written cannot be read without the key, and only tokens can be read with it."""

import hashlib
import hmac
import os
import stat
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.core.contract import Privacy
from fairway.core.errors import InvalidInput, SettingsError
from fairway.security.privacy import Vault, open_vault, private_fields, private_text

VAULT = Vault(bytes(range(64)))
OTHER = Vault(bytes(64))


@given(st.text(), st.text(st.characters(exclude_categories=["Cs"])))
def test_a_token_opens_with_its_key_and_field_only(field: str, text: str) -> None:
    field = field.encode("utf-8", "replace").decode()
    token = VAULT.sealed(field, text)
    assert VAULT.opened(field, token) == ("" if text == "\0" else text)
    assert token == VAULT.sealed(field, text)
    for vault, name, given_token in (
        (OTHER, field, token),
        (VAULT, field + "x", token),
        (VAULT, field, token[:-2]),
    ):
        with pytest.raises(InvalidInput, match="no token"):
            vault.opened(name, given_token)


def test_hashes_are_hmac_of_field_and_value() -> None:
    """Worked out with the standard library, step by step."""
    key = hmac.new(bytes(range(64)), b"fairway log hash\x01", hashlib.sha512).digest()
    expected = hmac.new(key, b"country\0DE", hashlib.sha256).hexdigest()[:32]
    assert VAULT.hashed("country", "DE") == expected
    assert (
        len({VAULT.hashed("a", "x"), VAULT.hashed("b", "x"), VAULT.hashed("a", "y"), OTHER.hashed("a", "x")})
        == 4
    )


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        (np.array(["DE", None, "ÜÑ\ud800"], dtype=object), ["DE", None, "ÜÑ?"]),
        (np.array([1.5, np.nan, 1e300]), ["1.5", None, "1e+300"]),
        (np.array([3, -4]), ["3", "-4"]),
        (np.array([True, False]), ["True", "False"]),
        (
            np.array(["2026-01-31T12:00:00", "NaT"], dtype="datetime64[us]"),
            ["2026-01-31T12:00:00.000000", None],
        ),
        (np.array([[1.0, 2.0], [3.0, 4.0]], dtype=np.float32), ["[1.0,2.0]", "[3.0,4.0]"]),
        (np.array([], dtype=object), []),
    ],
)
def test_every_kind_of_value_is_hashed_and_tokenised(values: np.ndarray, texts: list[str | None]) -> None:
    hashes = VAULT.written("f", values, Privacy.hash).tolist()
    assert hashes == [None if text is None else VAULT.hashed("f", text) for text in texts]
    tokens = VAULT.written("f", values, Privacy.token).tolist()
    assert [None if token is None else VAULT.opened("f", token) for token in tokens] == texts
    assert VAULT.written("f", values, Privacy.drop).tolist() == [None] * len(texts)


def test_fields_are_left_out_when_they_are_to_be_dropped_or_there_is_no_key() -> None:
    fields = {name: np.array(["x"], dtype=object) for name in ("a", "b", "c", "d")}
    rules = {"a": Privacy.drop, "b": Privacy.hash, "c": Privacy.token}
    assert list(private_fields(fields, rules, VAULT)) == ["b", "c", "d"]
    assert list(private_fields(fields, rules, None)) == ["d"]
    assert list(private_fields(fields, {}, None)) == ["a", "b", "c", "d"]


def test_one_text() -> None:
    assert private_text(None, "k", "ann", "keep") == "ann"
    assert private_text(VAULT, "k", "ann", "drop") is None
    assert private_text(None, "k", "ann", "hash") is None
    assert private_text(VAULT, "k", "ann", "hash") == VAULT.hashed("k", "ann")
    assert private_text(VAULT, "k", "ann", "token") == VAULT.sealed("k", "ann")


def test_the_key_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "home" / "log.secret"
    made: list[str] = []
    threads = [
        threading.Thread(target=lambda: made.append(open_vault(path).hashed("f", "x"))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 8
    assert len(set(made)) == 1
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [p.name for p in path.parent.iterdir()] == ["log.secret"]
    assert open_vault(path).hashed("f", "x") == made[0]
    assert open_vault(tmp_path / "another").hashed("f", "x") != made[0]


def test_a_key_is_on_the_disk_before_anything_is_written_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Name and all: after a power cut another key would be made, and nothing that was written could be opened."""
    synced, real = [], os.fsync

    def note(handle: int) -> None:
        real(handle)
        synced.append((os.readlink(f"/proc/self/fd/{handle}"), (tmp_path / "key").exists()))

    monkeypatch.setattr("fairway.security.privacy.os.fsync", note)
    open_vault(tmp_path / "key")
    assert synced[-1] == (str(tmp_path), True)


def test_a_key_that_cannot_be_trusted_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.secret"
    open_vault(path)
    path.chmod(0o640)
    with pytest.raises(SettingsError, match="chmod 600"):
        open_vault(path)
    path.chmod(0o600)
    path.write_text("not hexadecimal")
    with pytest.raises(SettingsError, match="hexadecimal"):
        open_vault(path)
    path.write_text("abcd")
    with pytest.raises(SettingsError, match="2 bytes"):
        open_vault(path)
    with pytest.raises(SettingsError, match=r"log\.secret_file"):
        open_vault(Path(os.devnull) / "below" / "a file")
