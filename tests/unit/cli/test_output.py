"""Tables: nothing of a value is lost, whatever the width."""

import pytest

from fairway.cli.output import print_line, print_table

LONG = "merchant_category_" + "x" * 200


def test_a_table_in_a_pipe_has_a_line_a_row(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    print_table(("column", "why"), [(LONG, "[0.1,0.9] and two words"), ("b", None)])
    heading, first, second = capsys.readouterr().out.splitlines()
    assert heading.split() == ["column", "why"]
    assert first.rstrip() == f"{LONG}  [0.1,0.9] and two words"
    assert second.strip() == "b"


def test_a_narrow_table_folds_values(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    print_table(("column",), [(LONG,)])
    lines = capsys.readouterr().out.splitlines()[1:]
    assert max(map(len, lines)) <= 60
    assert "".join(line.rstrip() for line in lines) == LONG


def test_a_table_without_rows_has_its_headings(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("column",), [])
    assert capsys.readouterr().out.strip() == "column"


def test_a_terminal_gets_no_commands_from_names(capsys: pytest.CaptureFixture[str]) -> None:
    name = "\x1b]0;mine\x07 \x1b[31m \u202eevil \x9b2J"
    print_table(["column"], [[name]])
    print_line(f"drifted: {name}")
    said = capsys.readouterr().out
    assert not set(said) & set("\x1b\x07\u202e\x9b")
    assert "\\x1b[31m" in said
    print_line("two\nlines, ünïcode")
    assert capsys.readouterr().out == "two\nlines, ünïcode\n"
