"""A closed-loop gRPC load generator: so many ModelInfer calls in flight, the next one sent when one is answered.

python -m benchmarks.grpc_load 127.0.0.1:8081 --model lr --body rows-1.json --in-flight 32 --seconds 5 [--pid SERVER]

It speaks HTTP/2 itself with frames made beforehand, so that one core can load servers that answer faster than a client
library can ask: about 5 us a call. Header blocks settle into the same few bytes as with gRPC's own clients. Prints one
JSON line: calls a second, latency percentiles in milliseconds, errors, and with --pid the CPU microseconds that the
server's processes spent on each call, which other work on the machine disturbs less than the rate.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from pathlib import Path

import numpy as np
import uvloop
from hpack import Decoder, Encoder

from fairway.serving.grpc import frames
from fairway.serving.grpc.messages import message
from fairway.serving.v2_raw import NUMPY

CLOCK_TICKS = 100
_STATUS_OK = frames.literal(b"grpc-status", b"0")
_WINDOW = frames.LARGEST_WINDOW
_PREPARED = 256


class Client(asyncio.Protocol):
    """One connection with `in_flight` calls at any time, until `stop`."""

    def __init__(self, authority: str, body: bytes, in_flight: int, headers: list[tuple[str, str]]) -> None:
        self._in_flight = in_flight
        encoder = Encoder()
        fields = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", "/inference.GRPCInferenceService/ModelInfer"),
            (":authority", authority),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            ("user-agent", "benchmarks-grpc-load"),
            ("grpc-accept-encoding", "identity, deflate, gzip"),
            *headers,
        ]
        self._first_block = encoder.encode(fields)
        self._block = encoder.encode(fields)
        self._message = b"\x00" + len(body).to_bytes(4, "big") + body
        self._decoder = Decoder()
        self._decoder.max_allowed_table_size = 65536
        self._known: dict[bytes, bool] = {}
        self._rest = b""
        self._next_stream = 1
        self._window = frames.DEFAULT_WINDOW
        self._owed = 0
        self._received = 0
        self._running = True
        self._sent_at: dict[int, float] = {}
        self.latencies: list[float] = []
        self.done = self.failed = 0
        self.last_error = ""
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        opening = frames.settings({frames.Setting.initial_window_size: _WINDOW})
        transport.write(frames.PREFACE + opening + frames.window_update(0, _WINDOW - frames.DEFAULT_WINDOW))
        self._owed = self._in_flight
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.over.done():
            self.over.set_result(None)

    def stop(self) -> None:
        self._running = False

    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        position, end = 0, len(data)
        unpack = frames.FRAME_HEAD.unpack_from
        while end - position >= 9:
            high, low, kind, flags, number = unpack(data, position)
            stop = position + 9 + (high << 16 | low)
            if stop > end:
                break
            payload = data[position + 9 : stop]
            position = stop
            if kind == frames.HEADERS:
                self._on_headers(flags, number, payload)
            elif kind == frames.DATA:
                self._received += len(payload)
            elif kind == frames.WINDOW_UPDATE:
                if not number:
                    self._window += int.from_bytes(payload, "big")
            elif kind == frames.SETTINGS and not flags & frames.ACK:
                self._transport.write(frames.frame(frames.SETTINGS, frames.ACK, 0))
            elif kind == frames.PING and not flags & frames.ACK:
                self._transport.write(frames.frame(frames.PING, frames.ACK, 0, payload))
            elif kind == frames.RST_STREAM:
                self._end_call(number, ok=False, why=f"reset {payload.hex()}")
            elif kind == frames.GOAWAY:
                self.last_error = f"goaway {payload[8:]!r}"
        self._rest = data[position:]
        if self._received > _WINDOW >> 2:
            self._transport.write(frames.window_update(0, self._received))
            self._received = 0
        self._send()

    def _on_headers(self, flags: int, number: int, block: bytes) -> None:
        ok: bool | None = self._known.get(block)
        if ok is None:
            if _STATUS_OK in block:
                ok = True  # literal fields change nothing that later blocks need
            else:
                entries = len(self._decoder.header_table.dynamic_entries)
                fields = {bytes(name): bytes(value) for name, value in self._decoder.decode(block, raw=True)}
                ok = fields.get(b"grpc-status", b"0") == b"0"
                if not ok:
                    self.last_error = str(fields)
                if len(self._decoder.header_table.dynamic_entries) == entries:
                    if len(self._known) < _PREPARED:
                        self._known[block] = ok
                else:
                    self._known.clear()
        if flags & frames.END_STREAM:
            self._end_call(number, ok=ok)

    def _end_call(self, number: int, *, ok: bool, why: str = "") -> None:
        began = self._sent_at.pop(number, None)
        if began is None:
            return
        self.latencies.append(time.perf_counter() - began)
        self.done += ok
        self.failed += not ok
        if why:
            self.last_error = why
        if self._running:
            self._owed += 1
        elif not self._sent_at and not self.over.done():
            self.over.set_result(None)

    def _send(self) -> None:
        out: list[bytes] = []
        now = time.perf_counter()
        size = len(self._message)
        while self._owed and self._window >= size:
            number = self._next_stream
            self._next_stream += 2
            block = self._block if number > 1 else self._first_block
            told = number.to_bytes(4, "big")
            out.append(len(block).to_bytes(3, "big") + b"\x01\x04" + told + block)
            for begin in range(0, size, frames.DEFAULT_FRAME):
                part = self._message[begin : begin + frames.DEFAULT_FRAME]
                last = b"\x01" if begin + len(part) == size else b"\x00"
                out.append(len(part).to_bytes(3, "big") + b"\x00" + last + told + part)
            self._window -= size
            self._owed -= 1
            self._sent_at[number] = now
        if out:
            self._transport.write(b"".join(out))


def infer_message(model: str, body: Path) -> bytes:
    """A ModelInferRequest with the tensors of a V2 JSON body, raw."""
    request = message("inference.ModelInferRequest")(model_name=model)
    for tensor in json.loads(body.read_text())["inputs"]:
        request.inputs.add(name=tensor["name"], datatype=tensor["datatype"], shape=tensor["shape"])
        values = np.array(tensor["data"], dtype=NUMPY[tensor["datatype"]])
        request.raw_input_contents.append(values.tobytes())
    return bytes(request.SerializeToString())


async def load(
    address: str,
    body: bytes,
    *,
    in_flight: int,
    connections: int,
    seconds: float,
    headers: list[tuple[str, str]],
    pid: int | None,
) -> dict[str, float | str]:
    """Runs for a second to warm up, then measures for `seconds`."""
    host, _, port = address.rpartition(":")
    loop = asyncio.get_running_loop()
    clients: list[Client] = []
    for number in range(connections):
        share = in_flight // connections + (number < in_flight % connections)
        _, client = await loop.create_connection(
            lambda share=share: Client(address, body, share, headers),  # type: ignore[misc]
            host,
            int(port),
        )
        clients.append(client)
    await asyncio.sleep(1.0)
    for client in clients:
        client.latencies.clear()
        client.done = client.failed = 0
    spent, began = _cpu_seconds(pid), time.perf_counter()
    await asyncio.sleep(seconds)
    elapsed, spent = time.perf_counter() - began, _cpu_seconds(pid) - spent
    latencies = np.array([value for client in clients for value in client.latencies]) * 1000
    done, failed = sum(client.done for client in clients), sum(client.failed for client in clients)
    for client in clients:
        client.stop()
    await asyncio.wait([client.over for client in clients], timeout=5)
    result: dict[str, float | str] = {"rate": round(done / elapsed, 1), "errors": failed}
    if failed:
        result["last_error"] = next(client.last_error for client in clients if client.failed)
    if len(latencies):
        for percent in (50, 90, 99, 99.9):
            result[f"p{percent:g}_ms"] = round(float(np.percentile(latencies, percent)), 3)
    if pid is not None and done:
        result["cpu_us"] = round(spent / done * 1e6, 1)
    return result


def _cpu_seconds(pid: int | None) -> float:
    """What a process and those below it have spent so far."""
    if pid is None:
        return 0.0
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(stat[11]) + int(stat[12])) / CLOCK_TICKS + sum(_cpu_seconds(int(child)) for child in children)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("address")
    parser.add_argument("--model", default="lr")
    parser.add_argument("--body", type=Path, required=True, help="a V2 JSON body with the tensors to send")
    parser.add_argument("--in-flight", type=int, default=32)
    parser.add_argument("--connections", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--header", action="append", default=[], help="NAME=VALUE metadata")
    parser.add_argument("--pid", type=int, help="the server's process, for its CPU time")
    asked = parser.parse_args()
    headers = [(name, value) for name, _, value in (text.partition("=") for text in asked.header)]
    result = uvloop.run(
        load(
            asked.address,
            infer_message(asked.model, asked.body),
            in_flight=asked.in_flight,
            connections=asked.connections,
            seconds=asked.seconds,
            headers=headers,
            pid=asked.pid,
        )
    )
    print(json.dumps(result))
    return 1 if result["errors"] else 0


if __name__ == "__main__":
    sys.exit(main())
