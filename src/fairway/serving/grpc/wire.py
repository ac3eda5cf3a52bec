"""ModelInfer's messages by hand, for the shape that nearly all clients send: raw contents, no parameters.

protobuf's own classes take three times as long, most of it to read the same names and shapes again and again: here a
tensor's description is remembered by its bytes. Whatever is not of that shape, or not right, is left to
`messages.py`: `read_infer` returns None. Where it does answer, it answers what the message class would; a property test
holds it to that.

Source: the protocol buffers encoding guide; field numbers of open_inference.proto.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import msgspec

_KNOWN = 1024
_LONGEST_TEXT = 256


class Described(msgspec.Struct, frozen=True, gc=False):
    """An input without its values."""

    name: str
    datatype: str
    shape: list[int]


class Asked(msgspec.Struct, frozen=True, gc=False):
    """A ModelInferRequest whose values are raw. `wanted` is None for all outputs."""

    model: str
    version: str
    id: str
    inputs: list[Described]
    raw: list[bytes]
    wanted: tuple[str, ...] | None


_described: dict[bytes, Described] = {}
_named: dict[bytes, str] = {}


def read_infer(data: bytes) -> Asked | None:
    """None for a message that has to be read by its class."""
    model = version = call_id = b""
    inputs: list[Described] = []
    wanted: list[str] = []
    raw: list[bytes] = []
    position, end = 0, len(data)
    try:
        while position < end:
            tag = data[position]
            size = data[position + 1]
            position += 2
            if size > 127:
                size &= 127
                shift = 7
                while True:
                    more = data[position]
                    position += 1
                    size |= (more & 127) << shift
                    if more < 128:
                        break
                    shift += 7
                    if shift > 28:
                        return None
            stop = position + size
            if stop > end:
                return None
            chunk = data[position:stop]
            position = stop
            if tag == 0x3A:
                raw.append(chunk)
            elif tag == 0x2A:
                found = _described.get(chunk) or _describe(chunk)
                if found is None:
                    return None
                inputs.append(found)
            elif tag == 0x32:
                name = _named.get(chunk)
                if name is None:
                    name = _name(chunk)
                if name is None:
                    return None
                wanted.append(name)
            elif tag == 0x0A:
                model = chunk
            elif tag == 0x12:
                version = chunk
            elif tag == 0x1A:
                call_id = chunk
            else:
                return None
        if len(raw) != len(inputs) or not raw:
            return None
        return Asked(
            model.decode(), version.decode(), call_id.decode(), inputs, raw, tuple(wanted) if wanted else None
        )
    except (IndexError, UnicodeDecodeError):
        return None


def _describe(chunk: bytes) -> Described | None:
    """An InferInputTensor of nothing but name, datatype and shape."""
    found = _read_described(chunk)
    _keep(_described, chunk, found)
    return found


def _name(chunk: bytes) -> str | None:
    """An InferRequestedOutputTensor of nothing but its name."""
    found = fields(chunk)
    name = None
    if found is not None and all(field == 1 for field, _ in found):
        try:
            name = found[-1][1].decode() if found else ""
        except UnicodeDecodeError:
            name = None
    _keep(_named, chunk, name)
    return name


def _keep(known: dict[bytes, Any], chunk: bytes, value: object) -> None:
    if value is not None and len(chunk) <= _LONGEST_TEXT:
        if len(known) >= _KNOWN:
            known.clear()
        known[chunk] = value


def _read_described(chunk: bytes) -> Described | None:
    name = datatype = b""
    shape: list[int] = []
    found = fields(chunk)
    if found is None:
        return None
    for field, value in found:
        if field == 1:
            name = value
        elif field == 2:
            datatype = value
        elif field == 3:
            sizes = _varints(value)
            if sizes is None:
                return None
            shape += sizes
        else:
            return None
    try:
        return Described(name.decode(), datatype.decode(), shape)
    except UnicodeDecodeError:
        return None


def fields(chunk: bytes) -> list[tuple[int, bytes]] | None:
    """Length-delimited fields with one-byte tags and lengths; None when there are others."""
    found: list[tuple[int, bytes]] = []
    position, end = 0, len(chunk)
    while position < end:
        tag = chunk[position]
        if tag & 0x87 != 2 or tag < 8 or position + 1 >= end or chunk[position + 1] > 127:
            return None
        stop = position + 2 + chunk[position + 1]
        if stop > end:
            return None
        found.append((tag >> 3, chunk[position + 2 : stop]))
        position = stop
    return found


def _varints(data: bytes) -> list[int] | None:
    """Packed int64 values; None for an encoding that is not the shortest, or cut short."""
    found: list[int] = []
    value = shift = 0
    for byte in data:
        value |= (byte & 127) << shift
        if byte > 127:
            shift += 7
            if shift > 63:
                return None
            continue
        if value >= 1 << 64:
            return None
        found.append(value - (1 << 64) if value >= 1 << 63 else value)
        value = shift = 0
    return None if shift else found


def write_infer(
    model: str,
    version: str,
    call_id: str,
    outputs: Iterable[tuple[str, str, Sequence[int]]],
    raw: list[bytes],
) -> bytes:
    """A ModelInferResponse with raw contents; `outputs` are name, datatype and shape."""
    parts = [_opening(model, version)]
    if call_id:
        parts.append(_field(0x1A, call_id.encode()))
    for name, datatype, shape in outputs:
        parts.append(_output(name, datatype, tuple(shape)))
    for values in raw:
        size = len(values)
        parts.append(b"\x32%c" % size if size < 128 else b"\x32" + varint(size))
        parts.append(values)
    return b"".join(parts)


def parameters(named: Iterable[tuple[str, str]]) -> bytes:
    """Text parameters of a ModelInferResponse, to stand behind its other fields."""
    parts = []
    for name, text in named:
        value = _field(0x1A, text.encode())  # InferParameter.string_param
        entry = _field(0x0A, name.encode()) + _field(0x12, value)
        parts.append(_field(0x22, entry))
    return b"".join(parts)


@lru_cache(maxsize=256)
def _opening(model: str, version: str) -> bytes:
    return _field(0x0A, model.encode()) + _field(0x12, version.encode())


@lru_cache(maxsize=_KNOWN)
def _output(name: str, datatype: str, shape: tuple[int, ...]) -> bytes:
    sizes = b"".join(varint(size) for size in shape)
    tensor = _field(0x0A, name.encode()) + _field(0x12, datatype.encode()) + _field(0x1A, sizes)
    return b"\x2a" + varint(len(tensor)) + tensor


def _field(tag: int, value: bytes) -> bytes:
    """A length-delimited field; nothing for one without a value, as proto3 writes it."""
    return bytes((tag,)) + varint(len(value)) + value if value else b""


def varint(value: int) -> bytes:
    """A number from 0."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)
