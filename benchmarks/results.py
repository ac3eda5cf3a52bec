"""RESULTS.md, a section a measurement: those that were made anew replace the old ones, the others stay with their date."""

from __future__ import annotations

import re
from pathlib import Path

_SECTION = re.compile(r"^## ", re.MULTILINE)


def sections_of(text: str) -> dict[str, str]:
    """Heading -> section, the heading's own line left out."""
    parts = _SECTION.split(text)[1:]
    return {part.partition("\n")[0].strip(): part.partition("\n")[2].strip() for part in parts}


def merge(path: Path, heading: str, made: dict[str, str], *, by: str) -> str:
    """The whole file. `made` are new sections by heading; `by` says when and how, and stands under each of them."""
    known = sections_of(path.read_text()) if path.exists() else {}
    known |= {name: f"{by}\n\n{text}" for name, text in made.items()}
    return heading + "\n".join(f"## {name}\n\n{text}\n" for name, text in known.items())
