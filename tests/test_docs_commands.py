"""Every command and every script in the README and the guides works, in the order a reader meets them."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.documents import ROOT, Reader, Step, steps

PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs" / "guides").glob("*.md")),
    ROOT / "examples" / "payments" / "README.md",
    ROOT / "examples" / "claims" / "README.md",
    ROOT / "examples" / "diagnosis" / "README.md",
    ROOT / "examples" / "recommendations" / "README.md",
]

SAMPLE = """
```console
$ echo one
one
$ echo two \\
  three
two three
```
   ```sh
   a
   b
   ```
```python file=x.py
print(1)
```
```console exit=3
$ true
$ cat > f <<END
body
END
$ exit 3
```
```sh not-run
rm -rf /
```
```json
{}
```
"""


@pytest.fixture(scope="session")
def beginnings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shared by the workers of pytest-xdist: its folders of one run lie side by side."""
    own = tmp_path_factory.getbasetemp()
    return (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "beginnings"


@pytest.fixture
def reader(tmp_path: Path, beginnings: Path) -> Iterator[Reader]:
    reader = Reader(tmp_path, beginnings)
    yield reader
    reader.close()


@pytest.mark.e2e
@pytest.mark.timeout(600)  # a page is many commands, each of which has its own limit
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_reader_can_follow_the_page(page: Path, reader: Reader) -> None:
    found = list(steps(page.read_text(encoding="utf-8")))
    assert found, "a page of the guides without one command that is run"
    for step in found:
        reader.take(step)


def test_the_steps_of_a_page_are_found() -> None:
    assert list(steps(SAMPLE)) == [
        Step("sh", "echo one", 3),
        Step("sh", "echo two \\\n  three", 5),
        Step("sh", "a\nb\n", 10),
        Step("file", "print(1)\n", 14, "x.py"),
        Step("sh", "true", 17),
        Step("sh", "cat > f <<END\nbody\nEND", 18),
        Step("sh", "exit 3", 21, exit_code=3),
    ]


def test_a_command_that_fails_fails_the_test(reader: Reader) -> None:
    with pytest.raises(AssertionError, match=r"line 7 ended with 1, not 0"):
        reader.take(Step("sh", "echo said; false", 7))
    reader.take(Step("sh", "false", 7, exit_code=1))


def test_a_beginning_that_pages_share_is_run_once(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("a", "b", "c")]
    for folder in folders:
        folder.mkdir()
    first, second, other = (Reader(folder, tmp_path / "beginnings") for folder in folders)
    train = "python -m examples.diagnosis.train --out ."
    told = first.take(Step("sh", train, 1))
    first.take(Step("sh", "rm rows.csv", 2))
    made = (folders[0] / "model.joblib").stat().st_mtime_ns
    assert second.take(Step("sh", train, 1)) == told
    assert (folders[1] / "model.joblib").stat().st_mtime_ns == made
    assert (folders[1] / "rows.csv").exists()
    other.take(Step("sh", "touch here-before", 1))
    other.take(Step("sh", train, 2))
    assert (folders[2] / "model.joblib").stat().st_mtime_ns != made
