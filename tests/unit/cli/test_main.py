"""The command itself: help, versions, errors as messages, exit codes."""

import re
import subprocess
import sys
from importlib import import_module
from typing import Any

import click
import msgspec
import pytest

from fairway import __version__
from fairway.cli import main as module
from fairway.cli.main import EXIT_CODES, VERBS, exit_code, main
from fairway.core import errors
from fairway.core.errors import FairwayError, InvalidInput, Problem

WITHOUT_A_HOME = ("package", "bench", "estimate", "stream")


def inner_verbs(verb: str) -> tuple[str, ...]:
    """The verbs below `fairway VERB`; none where it is a command itself."""
    command = module.cli.get_command(click.Context(module.cli), verb)
    return tuple(command.list_commands(click.Context(command))) if hasattr(command, "list_commands") else ()


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    shown = capsys.readouterr()
    return int(ended.value.code or 0), shown.out, shown.err


def test_help_lists_every_verb_with_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    for option in ("--help", "-h"):
        code, out, _ = run(capsys, option)
        assert code == 0
        assert all(f"  {verb} " in out for verb in VERBS)
        assert "Example:" in out


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_helps_and_shows_an_example(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, verb, "--help")
    assert code == 0
    inner = inner_verbs(verb)
    for name in inner:  # a group's own verbs have the examples
        _, shown, _ = run(capsys, verb, name, "--help")
        assert re.search(f"Example:  .*fairway {verb} {name}", " ".join(shown.split("\n"))), shown
    if not inner:
        assert f"Example:  fairway {verb}" in out
        assert "--json" in out
        assert "--home" in out or verb in WITHOUT_A_HOME
        assert import_module(VERBS[verb][0]).app is not None


def test_a_typing_mistake_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, told = run(capsys, "servee")
    assert code == 2
    assert "No such command 'servee'. Did you mean serve?" in told
    assert "Did you mean" not in run(capsys, "frobnicate")[2]
    assert "No such command 'lok'. Did you mean look?" in run(capsys, "monitor", "lok")[2]


def test_groups_are_told_from_verbs() -> None:
    assert {"show", "edit", "check"} <= set(inner_verbs("contract"))
    assert inner_verbs("serve") == ()


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--version")
    assert (code, out.strip()) == (0, f"fairway, version {__version__}")


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["show"],
        ["models", "--nonsense"],
        ["alias", "m", "a", "zero"],
        ["serve", "--workers", "0"],
    ],
)
def test_wrong_usage_is_a_2_with_a_message(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert "Traceback" not in err
    assert err


@pytest.mark.parametrize(
    "name", [n for n, c in vars(errors).items() if isinstance(c, type) and issubclass(c, FairwayError)]
)
def test_every_error_has_its_exit_code(name: str) -> None:
    error = getattr(errors, name)("x")
    code = exit_code(error)
    assert code == next((code for kind, code in EXIT_CODES if isinstance(error, kind)), 1)
    assert 1 <= code <= 8
    assert code != 2


class Failing(click.Group):
    error: BaseException = RuntimeError()

    def main(self, *args: Any, **kwargs: Any) -> Any:
        raise self.error


def fail_with(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    group = Failing()
    group.error = error
    monkeypatch.setattr(module, "cli", group)


def test_an_error_is_a_message_with_its_problems(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    problems = (Problem("is null", "amount", 3), Problem("0 rows"), *[Problem("bad", "x")] * 30)
    fail_with(InvalidInput("it does not fit.", problems), monkeypatch)
    code, out, err = run(capsys, "anything")
    assert (code, out) == (4, "")
    assert err.splitlines()[:3] == ["error: it does not fit.", "  amount row 3: is null", "  0 rows"]
    assert err.splitlines()[-1] == "  ... and 12 more"
    code, _, err = run(capsys, "anything", "--json")
    told = msgspec.json.decode(err)
    assert (told["code"], len(told["problems"])) == ("invalid_input", 32)


def test_an_only_problem_that_the_message_tells_is_told_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fail_with(InvalidInput("It cannot be: never due.", (Problem("never due.", "cron"),)), monkeypatch)
    assert run(capsys, "anything")[2] == "error: It cannot be: never due.\n"


def test_ctrl_c_is_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    fail_with(click.exceptions.Abort(), monkeypatch)
    assert run(capsys, "anything")[0] == 130


def test_the_command_is_installed_and_the_module_runs() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fairway.cli.main", "--version"], capture_output=True, text=True, check=True
    )
    assert __version__ in done.stdout


def test_the_package_is_the_command() -> None:
    told = subprocess.run(
        [sys.executable, "-m", "fairway", "--version"], capture_output=True, text=True, check=True
    )
    assert __version__ in told.stdout
