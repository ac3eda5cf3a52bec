"""Settings from `fairway.toml`: what is wrong in it is named, with where it stands and what there is."""

from pathlib import Path

import pytest

from fairway.app.settings import read_settings
from fairway.core.errors import SettingsError

WRONG = """
[server]
port = 80
[serving]
prot = 80
[models.scores]
slice = ["region"]
[alerts.channels.mail]
kind = "smtp"
tls = "none"
[[alerts.rules]]
feild = "amount"
"""


def test_every_name_that_there_is_not_is_said_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "fairway.toml").write_text(WRONG)
    with pytest.raises(SettingsError) as caught:
        read_settings(tmp_path, {})
    said = str(caught.value)
    assert f"{tmp_path / 'fairway.toml'} is wrong: " in said
    for part in (
        "the file has no 'server'",
        "[serving] has no 'prot' (did you mean port?)",
        "[models.scores] has no 'slice' (did you mean slices?)",
        "[alerts.rules] has no 'feild' (did you mean field?)",
        "[alerts.channels.mail] has no 'tls' (there are ca_file, events, ",
    ):
        assert part in said, part


def test_a_value_of_another_type_is_said_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "fairway.toml").write_text('[serving]\nport = "many"\n')
    with pytest.raises(SettingsError, match=r"serving.port"):
        read_settings(tmp_path, {})
