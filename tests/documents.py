"""Reads the commands out of a Markdown page and runs them as a reader would, one after the other.

Fenced blocks that count:

    ```console            lines that begin with `$ ` are commands; the rest is what they print
    ```console exit=1     the last command ends with 1
    ```sh                 the whole block is one script
    ```python             a script of its own
    ```python file=x.py   is written to x.py instead of run; so are toml, csv and other blocks with file=
    ```... not-run        shown only; the page says why

`fairway serve` is started in the background on free ports and stopped with the page; the ports 8080, 8081, 8090 and 4318
in other commands are replaced by them. `fairway control` is started so too.

Most pages begin by training an example and deploying it, word for word alike. With a folder for them, these beginnings
are run once and copied from there on.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
FENCE = re.compile(r"^( *)```(\w+)([^\n]*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
READY_SECONDS = 60
BEGINNING = re.compile(r"python -m examples\.\w+\.train |fairway deploy ")


@dataclass(frozen=True)
class Step:
    """A command (`kind` sh), a script (python) or a file to write (file, named `name`), from line `line`."""

    kind: str
    text: str
    line: int
    name: str = ""
    exit_code: int = 0


def steps(page: str) -> Iterator[Step]:
    for match in FENCE.finditer(page):
        indent, language, options, body = match.groups()
        line = page[: match.start()].count("\n") + 2
        text = "".join(row.removeprefix(indent) for row in body.splitlines(keepends=True))
        if "not-run" in options:
            continue
        file = re.search(r"file=(\S+)", options)
        code = re.search(r"exit=(\d+)", options)
        wanted = int(code[1]) if code else 0
        if file:
            yield Step("file", text, line, file[1])
        elif language == "python":
            yield Step("python", text, line, exit_code=wanted)
        elif language == "sh":
            yield Step("sh", text, line, exit_code=wanted)
        elif language == "console":
            found = list(commands(text))
            for i, (offset, command) in enumerate(found):
                last = i == len(found) - 1
                yield Step("sh", command, line + offset, exit_code=wanted if last else 0)


def commands(text: str) -> Iterator[tuple[int, str]]:
    """`$ ` lines with their continuation lines (a backslash at the end, or a here-document)."""
    rows = text.splitlines()
    i = 0
    while i < len(rows):
        if rows[i].startswith("$ "):
            start, command = i, [rows[i][2:]]
            here = re.search(r"<<'?(\w+)'?", rows[i])
            while command[-1].endswith("\\") or (here and command[-1].strip() != here[1]):
                i += 1
                command.append(rows[i])
            yield start, "\n".join(command)
        i += 1


class Reader:
    """Runs a page's steps in `folder`; `close` stops what is still serving. `beginnings` is a folder that readers share."""

    def __init__(self, folder: Path, beginnings: Path | None = None) -> None:
        self._folder = folder
        self._beginnings = beginnings
        self._begun = hashlib.sha256()
        self._log = folder / "serve.log"
        self._servers: list[subprocess.Popen[bytes]] = []
        self._ports = {port: str(_free_port()) for port in ("8080", "8081", "8090", "4318")}
        self._environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "FAIRWAY_HOME": str(folder / "home"),
            "FAIRWAY_SERVING_PORT": self._ports["8080"],
            "FAIRWAY_SERVING_GRPC_PORT": self._ports["8081"],
            "FAIRWAY_CONTROL_PORT": self._ports["8090"],
            "LOGNAME": "ann",
            "NO_COLOR": "1",
            "COLUMNS": "110",
        }
        (folder / "examples").symlink_to(ROOT / "examples")

    def take(self, step: Step) -> str:
        """What the step printed, with the ports of the page. Raises AssertionError, with what was printed, when
        the step ends otherwise than the page says."""
        if self._beginnings is None or step.kind != "sh" or step.exit_code or not BEGINNING.match(step.text):
            self._beginnings = None  # what has been done since is not of the beginning
            return self._take(step)
        self._begun.update(step.text.encode() + b"\n")
        kept = self._beginnings / self._begun.hexdigest()
        if not kept.exists():
            printed = self._take(step)
            self._keep(kept, printed)
            return printed
        shutil.copytree(kept / "folder", self._folder, symlinks=True, dirs_exist_ok=True)
        return (kept / "printed.txt").read_text(encoding="utf-8")

    def _keep(self, kept: Path, printed: str) -> None:
        """Keeps the folder as it is now. Of readers that are here at once, the first one counts."""
        kept.parent.mkdir(exist_ok=True)
        making = Path(tempfile.mkdtemp(dir=kept.parent))
        leave_out = shutil.ignore_patterns("examples")
        shutil.copytree(self._folder, making / "folder", symlinks=True, ignore=leave_out)
        (making / "printed.txt").write_text(printed, encoding="utf-8")
        try:
            making.rename(kept)
        except OSError:
            shutil.rmtree(making)

    def _take(self, step: Step) -> str:
        text = re.sub(r"\b(8080|8081|8090|4318)\b", lambda match: self._ports[match[1]], step.text)
        if step.kind == "file":
            (self._folder / step.name).write_text(text, encoding="utf-8")
            return ""
        if step.kind == "python":
            printed = self._run([sys.executable, "-c", text], step)
        elif text.startswith(("fairway serve", "fairway control")):
            printed = self._serve(text.removesuffix("&").strip())
        else:
            printed = self._run(["bash", "-euo", "pipefail", "-c", text], step)
        for port, ours in self._ports.items():
            printed = printed.replace(ours, port)
        return printed.replace(str(self._folder / "home"), "~/.fairway").replace(str(self._folder), ".")

    def close(self) -> None:
        for server in self._servers:
            server.send_signal(signal.SIGTERM)
        for server in self._servers:
            server.wait(30)

    def _run(self, command: list[str], step: Step) -> str:
        done = subprocess.run(
            command,
            cwd=self._folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=150,
            check=False,
        )
        assert done.returncode == step.exit_code, (
            f"line {step.line} ended with {done.returncode}, not {step.exit_code}:\n{step.text}\n{done.stdout}\n"
            + "\n".join(f"server ended with {s.poll()}:\n{self._log.read_text()}" for s in self._servers)
        )
        return done.stdout

    def _serve(self, command: str) -> str:
        log = self._log
        with log.open("wb") as output:
            server = subprocess.Popen(
                ["bash", "-c", f"exec {command}"],
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self._servers.append(server)
        deadline = time.monotonic() + READY_SECONDS
        while not _is_ready(log.read_text()):
            assert server.poll() is None, f"{command} ended with {server.returncode}:\n{log.read_text()}"
            assert time.monotonic() < deadline, f"{command} is not ready:\n{log.read_text()}"
            time.sleep(0.05)
        return log.read_text()


def _is_ready(told: str) -> bool:
    """Whether a server has printed that it answers, for people or for programs."""
    return any(line.startswith(("ready  ", '{"ready":true')) for line in told.splitlines())


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
