"""`fairway doctor` as a person and as a program meets it, with fabricated findings."""

from pathlib import Path

import msgspec
import pytest

from fairway.cli import doctor, main
from fairway.doctor.findings import Facts, Finding, Status

WELL = Finding("python", Status.ok, "Python 3.11.7")
WARNED = Finding("ports", Status.warning, "port 8080 cannot be used", "fairway serve --port 9080")
ILL = Finding("packages", Status.problem, "numpy 1.26 is outside", "pip install 'numpy>=2.1,<3'")


def run(monkeypatch: pytest.MonkeyPatch, findings: tuple[Finding, ...], *options: str) -> int:
    monkeypatch.setattr(doctor, "examine", lambda home: findings)
    with pytest.raises(SystemExit) as ended:
        main.main(["doctor", *options])
    return int(ended.value.code or 0)


def test_a_well_machine_ends_with_0(monkeypatch, capsys) -> None:
    assert run(monkeypatch, (WELL, WARNED)) == 0
    out = capsys.readouterr().out
    assert "nothing is in the way" in out
    assert "fairway serve --port 9080" in out


def test_a_problem_ends_with_1_and_prints_the_command_whole(monkeypatch, capsys) -> None:
    assert run(monkeypatch, (WELL, ILL)) == 1
    assert "pip install 'numpy>=2.1,<3'\n" in capsys.readouterr().out


def test_json_is_for_programs(monkeypatch, capsys) -> None:
    assert run(monkeypatch, (WELL, ILL), "--json") == 1
    told = msgspec.json.decode(capsys.readouterr().out)
    assert told["healthy"] is False
    assert [finding["status"] for finding in told["findings"]] == ["ok", "problem"]
    assert told["findings"][1]["fix"] == "pip install 'numpy>=2.1,<3'"


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Facts]:
    """The facts that the doctor gathered; imports of heavy libraries are not tried again here."""
    facts: list[Facts] = []

    def look(*arguments, **options):
        facts.append(doctor_look(*arguments, libraries=(), **options))
        return facts[-1]

    doctor_look = doctor.look
    monkeypatch.setattr(doctor, "look", look)
    return facts


def test_settings_that_cannot_be_read_are_a_finding(tmp_path: Path, seen: list[Facts]) -> None:
    (tmp_path / "fairway.toml").write_text("[serving]\nprot = 1\n")
    problems = [f for f in doctor.examine(str(tmp_path)) if f.status is Status.problem]
    assert [f.check for f in problems] == ["settings"]
    assert "prot" in problems[0].message
    assert seen[0].home == str(tmp_path)


def test_a_password_in_the_database_url_is_not_shown(tmp_path: Path, seen: list[Facts]) -> None:
    (tmp_path / "fairway.toml").write_text(
        '[registry]\ndatabase_url = "postgresql://ann:s3cret@127.0.0.1:9/models"\nlock_timeout_seconds = 1.0\n'
    )
    findings = doctor.examine(str(tmp_path))
    assert "registry" in [f.check for f in findings if f.status is Status.problem]
    assert seen[0].registry == "postgresql at 127.0.0.1"
    assert "s3cret" not in msgspec.json.encode(findings).decode()


def test_wrong_usage_is_one_message_and_ends_with_2(monkeypatch, capsys) -> None:
    assert run(monkeypatch, (WELL,), "--nope") == 2
    assert "No such option: --nope" in capsys.readouterr().err
