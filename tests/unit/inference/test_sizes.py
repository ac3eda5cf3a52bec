"""What loading takes, told from files."""

import sys
from pathlib import Path

from fairway.inference.sizes import engine_bytes, import_engine


def test_the_engines_files_count(tmp_path: Path) -> None:
    (tmp_path / "engine" / "nodes").mkdir(parents=True)
    (tmp_path / "engine" / "model").write_bytes(b"x" * 100)
    (tmp_path / "engine" / "nodes" / "more").write_bytes(b"x" * 11)
    (tmp_path / "golden.json").write_bytes(b"x" * 1000)
    assert engine_bytes(tmp_path) == 111
    assert engine_bytes(tmp_path / "nothing") == 0


def test_the_library_is_imported_and_what_is_wrong_is_left_for_later(tmp_path: Path) -> None:
    for content in (None, "{}", '{"engine": {"kind": "unknown", "file": "f"}}', "\xff"):
        if content is not None:
            (tmp_path / "manifest.json").write_text(content)
        import_engine(tmp_path)
    (tmp_path / "manifest.json").write_text('{"engine": {"kind": "native:python", "file": "f"}}')
    import_engine(tmp_path)
    assert "fairway.runtimes.python" in sys.modules
