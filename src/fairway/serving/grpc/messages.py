"""The protocols' message classes, in a descriptor pool of our own.

protobuf keeps one pool for all generated code of a process, and refuses two files that define the same names. An
application that imports Fairway beside `tritonclient` or `tensorflow_serving` would not start; with a pool of our own
nobody meets. `protos/descriptors.binpb` is made from `protos/*.proto` by `python -m scripts.protos`.

Importing this module takes protobuf's 5 MB and a tenth of a second, so a worker does it when the first message comes
that `wire.py` cannot read.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError, Message

from fairway.core.errors import MalformedInput

_COMPILED = Path(__file__).with_name("protos") / "descriptors.binpb"


@cache
def files() -> dict[str, bytes]:
    """Each file's descriptor, serialised, by its name; a file stands after those it imports."""
    found = descriptor_pb2.FileDescriptorSet.FromString(_COMPILED.read_bytes())
    return {file.name: file.SerializeToString() for file in found.file}


@cache
def pool() -> Any:
    made = descriptor_pool.DescriptorPool()
    for file in files().values():
        made.AddSerializedFile(file)
    return made


@cache
def services() -> list[str]:
    """Full names of all services."""
    found = [pool().FindFileByName(name) for name in files()]
    return sorted(service.full_name for file in found for service in file.services_by_name.values())


@cache
def message(name: str) -> Any:
    """The class of a message, by its full name."""
    return message_factory.GetMessageClass(pool().FindMessageTypeByName(name))


def parse(name: str, data: bytes) -> Any:
    """Raises MalformedInput for bytes that are no such message."""
    kind: type[Message] = message(name)
    try:
        return kind.FromString(data)
    except (DecodeError, ValueError, RecursionError):
        raise MalformedInput(f"The message is not a {name}.") from None
