"""Work that gives way does so between sessions too."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fairway.core import priority

AUTOGROUP = Path("/proc/self/autogroup")
CODE = """
from pathlib import Path
from fairway.core.priority import give_way
import os
group = Path("/proc/self/autogroup")
before = group.read_text("ascii").split()  # nothing where this session has none
give_way(7)
print([str(os.nice(0)), before[-1:], group.read_text("ascii").split()[-1:]])
"""


@pytest.mark.skipif(not AUTOGROUP.exists(), reason="this kernel has no autogroups")
@pytest.mark.parametrize("own", [True, False])
def test_a_session_of_its_own_gives_way_and_no_other_does(own: bool) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE], start_new_session=own, capture_output=True, text=True, check=True
    )
    nice, before, after = ast.literal_eval(done.stdout)
    assert int(nice) >= 7
    assert after == ([nice] if own and before else before)


@pytest.mark.parametrize("trouble", [BlockingIOError, PermissionError, FileNotFoundError])
def test_a_system_that_does_not_let_it_changes_nothing(
    trouble: type[OSError], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def refuse(self: Path, text: str, encoding: str) -> int:
        asked.append(text)
        raise trouble

    monkeypatch.setattr("os.getsid", lambda process: os.getpid())
    monkeypatch.setattr("os.nice", lambda more: 3 + more)
    monkeypatch.setattr(Path, "write_text", refuse)
    monkeypatch.setattr(priority, "_PAUSE_SECONDS", 0.0)
    priority.give_way(2)
    assert asked == ["5"] * (5 if trouble is BlockingIOError else 1)
