"""Tables: nothing of a value is lost, whatever the width."""

import msgspec
import pytest

from fairway.cli.output import print_line, print_table, tolerance_text
from fairway.core.bundle import Proof

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


def test_a_tolerance_that_was_a_share_says_so() -> None:
    """Of numbers in the hundreds a difference of 0.0001 is within 1e-05, which nobody could tell from the figures."""
    proof = Proof(
        engine="onnx", rows=1, label_flips=0, max_abs_diff=1e-6, mean_abs_diff=0.0, tolerance=1e-5, reason=""
    )
    assert tolerance_text(proof) == "1e-05"
    assert tolerance_text(msgspec.structs.replace(proof, max_abs_diff=1e-4)) == "1e-05 of each number's size"
