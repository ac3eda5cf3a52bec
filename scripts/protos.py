"""Compiles src/fairway/serving/grpc/protos/*.proto into the descriptor set that servers load.

python -m scripts.protos            write descriptors.binpb
python -m scripts.protos --check    change nothing; exit 1 if it is out of date
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "src" / "fairway" / "serving" / "grpc" / "protos"
COMPILED = FOLDER / "descriptors.binpb"


def compiled() -> bytes:
    """The descriptor set of all files, those they import included."""
    sources = sorted(path.name for path in FOLDER.glob("*.proto"))
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "descriptors.binpb"
        command = [sys.executable, "-m", "grpc_tools.protoc", f"--proto_path={FOLDER}", "--include_imports"]
        subprocess.run([*command, f"--descriptor_set_out={output}", *sources], check=True)
        return output.read_bytes()


def main() -> int:
    if "--check" in sys.argv[1:]:
        current = COMPILED.exists() and COMPILED.read_bytes() == compiled()
        if not current:
            print(f"{COMPILED} is out of date: python -m scripts.protos", file=sys.stderr)
        return 0 if current else 1
    COMPILED.write_bytes(compiled())
    print(f"wrote {COMPILED}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
