"""The few messages of V2 over gRPC that a load generator needs, in protobuf's wire format.

Source: kserve/open-inference-protocol, specification/protocol/open_inference_grpc.proto (the field numbers), and
protobuf.dev/programming-guides/encoding. Written out here because a body is made once and then sent as bytes: no
generated code is needed, and none of the server's.
"""

from __future__ import annotations

from collections.abc import Iterator

INFER = "/inference.GRPCInferenceService/ModelInfer"
METADATA = "/inference.GRPCInferenceService/ModelMetadata"


def named_model(model: str, version: str) -> bytes:
    """ModelMetadataRequest."""
    return _text(1, model) + (_text(2, version) if version else b"")


def infer_request(model: str, version: str, tensors: list[tuple[str, str, list[int], bytes]]) -> bytes:
    """ModelInferRequest; each tensor is its name, datatype, shape and raw contents."""
    message = _text(1, model) + (_text(2, version) if version else b"")
    for name, datatype, shape, _ in tensors:
        sizes = b"".join(_varint(size) for size in shape)
        message += _bytes(5, _text(1, name) + _text(2, datatype) + _bytes(3, sizes))
    return message + b"".join(_bytes(7, raw) for _, _, _, raw in tensors)


def described_inputs(metadata: bytes) -> list[tuple[str, str, list[int]]]:
    """Name, datatype and shape of each input in a ModelMetadataResponse. Raises ValueError when it is none."""
    return [
        _described(value) for number, value in _fields(metadata) if number == 4 and isinstance(value, bytes)
    ]


def _described(message: bytes) -> tuple[str, str, list[int]]:
    name = datatype = ""
    shape: list[int] = []
    for number, value in _fields(message):
        if number == 3:
            shape += _integers(value) if isinstance(value, bytes) else [_signed(value)]
        elif isinstance(value, bytes) and number == 1:
            name = value.decode()
        elif isinstance(value, bytes) and number == 2:
            datatype = value.decode()
    return name, datatype, shape


def _varint(value: int) -> bytes:
    value &= 2**64 - 1
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def _bytes(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _text(number: int, value: str) -> bytes:
    return _bytes(number, value.encode())


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(message) or shift > 63:
            raise ValueError("not a protobuf message")
        value |= (message[at] & 127) << shift
        at += 1
        if message[at - 1] < 128:
            return value, at
        shift += 7


def _integers(packed: bytes) -> list[int]:
    values, at = [], 0
    while at < len(packed):
        value, at = _read_varint(packed, at)
        values.append(_signed(value))
    return values


def _fields(message: bytes) -> Iterator[tuple[int, bytes | int]]:
    """Field numbers with their values: bytes, or an unsigned integer."""
    at = 0
    while at < len(message):
        tag, at = _read_varint(message, at)
        kind = tag & 7
        if kind == 0:
            value, at = _read_varint(message, at)
            yield tag >> 3, value
            continue
        if kind == 2:
            size, at = _read_varint(message, at)
        else:
            size = {1: 8, 5: 4}.get(kind, -1)
        if size < 0 or at + size > len(message):
            raise ValueError("not a protobuf message")
        yield tag >> 3, message[at : at + size]
        at += size
