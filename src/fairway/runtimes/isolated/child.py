"""The program that runs a user's function in an environment of its own. One file; Python 3.8+ and numpy, no Fairway.

It is started with three inherited file descriptors: a socket for short JSON messages (four bytes of length first), and
two shared files, one for the rows that come in and one for the answers that go out. The server imports the part
that lays arrays out in such a file, so both sides read it alike:

    numbers     [name, dtype, shape, offset]                        C-ordered elements at offset
    texts       [name, "text", shape, offsets, valid, data, bytes]  as in Arrow: n + 1 int64 offsets into UTF-8 data,
                                                                    and one byte a value that is 0 for a null

Nothing is pickled. What the function prints goes to stdout and stderr as ever: neither carries messages.
"""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import json
import mmap
import os
import platform
import signal
import socket
import struct
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

ALIGNMENT = 64
LEAST_BYTES = 1 << 16
MESSAGE_BYTES = 16 << 20
"""Largest message: a few hundred bytes a column."""
ERROR_CHARACTERS = 4000
_LENGTH = struct.Struct("<I")
_READ_BYTES = 1 << 13
_KINDS = "biufM"
_MOST_ITEM_BYTES = 8


class BufferFull(Exception):
    """More bytes than a shared buffer may have. `args` are the bytes needed and the limit."""


class NotAnAnswer(Exception):
    """What the function returned cannot be carried."""


def lay_out(arrays: Mapping[str, Any]) -> tuple[list[list[Any]], list[tuple[int, Any]], int]:
    """(descriptions, blocks to be written as (offset, array), bytes in all). Raises NotAnAnswer naming the array."""
    descriptions: list[list[Any]] = []
    blocks: list[tuple[int, Any]] = []
    end = 0

    def place(block: Any) -> int:
        nonlocal end
        offset = -(-end // ALIGNMENT) * ALIGNMENT
        blocks.append((offset, block))
        end = offset + block.nbytes
        return offset

    for name, array in arrays.items():
        shape = list(array.shape)
        if array.dtype.kind in _KINDS and array.dtype.itemsize <= _MOST_ITEM_BYTES:
            if not array.dtype.isnative:
                array = array.astype(array.dtype.newbyteorder("="))
            descriptions.append([name, array.dtype.str, shape, place(array)])
        elif array.dtype.kind in "OU":
            offsets, valid, data = _encoded(name, array)
            descriptions.append(
                [name, "text", shape, place(offsets), place(valid), place(data), int(data.size)]
            )
        else:
            raise NotAnAnswer(f"{name!r} holds {array.dtype}, which is neither numbers, text nor timestamps")
    return descriptions, blocks, end + ALIGNMENT


def _encoded(name: str, array: Any) -> tuple[Any, Any, Any]:
    values = array.ravel().tolist()
    valid = np.ones(len(values), dtype=np.uint8)
    try:
        joined = "".join(values)
        plain = joined.isascii()
    except TypeError:  # nulls among them, or no text at all
        plain = False
    if plain:
        pieces: list[Any] = values
        content = joined.encode("ascii")
    else:
        pieces = [_piece(name, value) for value in values]
        for position, piece in enumerate(pieces):
            if piece is None:
                valid[position] = 0
                pieces[position] = b""
        content = b"".join(pieces)
    offsets = np.zeros(len(values) + 1, dtype=np.int64)
    np.cumsum(np.fromiter(map(len, pieces), dtype=np.int64, count=len(pieces)), out=offsets[1:])
    return offsets, valid, np.frombuffer(content, dtype=np.uint8)


def _piece(name: str, value: Any) -> bytes | None:
    """The bytes of a text, None for a null in any of its forms."""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    if value is None or type(value).__name__ == "NAType" or value != value:  # noqa: PLR0124 - NaN
        return None
    raise NotAnAnswer(f"{name!r} holds a {type(value).__name__} beside text")


def write(blocks: list[tuple[int, Any]], buffer: Any) -> None:
    """Writes the blocks of `lay_out` into a buffer that is large enough."""
    for offset, block in blocks:
        np.ndarray(block.shape, block.dtype, buffer, offset)[...] = block


def read(descriptions: Any, buffer: Any) -> dict[str, Any]:
    """Copies the described arrays out of the buffer. Raises ValueError or TypeError for what cannot be there."""
    arrays: dict[str, Any] = {}
    for name, kind, shape, offset, *rest in descriptions:
        shape = tuple(shape)
        if any(type(size) is not int or size < 0 for size in shape) or type(name) is not str:
            raise ValueError(f"an array of shape {shape!r}")
        if kind == "text":
            arrays[name] = _decoded(shape, offset, rest, buffer)
            continue
        dtype = np.dtype(kind)
        if dtype.kind not in _KINDS or offset < 0:
            raise ValueError(f"{kind!r} at {offset!r}")
        arrays[name] = np.ndarray(shape, dtype, buffer, offset).copy()
    return arrays


def _decoded(shape: tuple[int, ...], at: int, rest: list[int], buffer: Any) -> Any:
    valid_at, data_at, size = rest
    count = 1
    for length in shape:
        count *= length
    ends = np.ndarray((count + 1,), np.int64, buffer, at)
    valid = np.ndarray((count,), np.uint8, buffer, valid_at)
    data = np.ndarray((size,), np.uint8, buffer, data_at).tobytes()
    if ends[0] != 0 or ends[-1] != size or (ends[1:] < ends[:-1]).any():
        raise ValueError("offsets that do not ascend")
    offsets = ends.tolist()
    places = zip(offsets, offsets[1:])  # noqa: B905, RUF007 - Python 3.8
    if data.isascii():
        text = data.decode("ascii")
        texts: list[Any] = [text[start:end] for start, end in places]
    else:
        texts = [data[start:end].decode("utf-8", "surrogatepass") for start, end in places]
    values = np.empty(count, dtype=object)
    values[:] = texts
    values[valid == 0] = None
    return values.reshape(shape)


class Shared:
    """A growing shared file behind an inherited descriptor, mapped into memory."""

    def __init__(self, descriptor: int, most_bytes: int) -> None:
        self.descriptor = descriptor
        self.most_bytes = most_bytes
        self.memory = mmap.mmap(descriptor, os.fstat(descriptor).st_size)

    def grow(self, needed: int) -> None:
        """Makes room for `needed` bytes. Raises BufferFull, or OSError when the machine has no memory for it."""
        if needed <= len(self.memory):
            return
        if needed > self.most_bytes:
            raise BufferFull(needed, self.most_bytes)
        size = min(max(needed, 2 * len(self.memory)), self.most_bytes)
        if hasattr(
            os, "posix_fallocate"
        ):  # memory that is promised and not there would kill whoever writes to it
            os.posix_fallocate(self.descriptor, 0, size)
        else:
            os.ftruncate(self.descriptor, size)
        self.map()

    def map(self) -> None:
        """Maps the file again where the other side has made it larger."""
        size = os.fstat(self.descriptor).st_size
        if size != len(self.memory):
            old, self.memory = self.memory, mmap.mmap(self.descriptor, size)
            with contextlib.suppress(BufferError):  # an error that is being told holds a view of it
                old.close()

    def close(self) -> None:
        with contextlib.suppress(BufferError):
            self.memory.close()
        os.close(self.descriptor)


def send(connection: socket.socket, message: Any) -> None:
    content = json.dumps(message).encode()
    connection.sendall(_LENGTH.pack(len(content)) + content)


def receive(connection: socket.socket) -> Any:
    """The next message, or None when the other side is gone. Raises ValueError for what is no message.

    Each side waits for the other's answer, so nothing can follow a message.
    """
    content = connection.recv(_READ_BYTES)
    while content:
        if len(content) >= _LENGTH.size:
            whole = _LENGTH.unpack_from(content)[0] + _LENGTH.size
            if whole > MESSAGE_BYTES or len(content) > whole:
                raise ValueError(f"a message of {whole} bytes")
            if len(content) == whole:
                return json.loads(content[_LENGTH.size :])
        part = connection.recv(_READ_BYTES)
        if not part:
            return None
        content += part
    return None


def named_outputs(answer: Any) -> dict[str, Any]:
    """A function's answer as arrays by name: one array is `prediction`."""
    if hasattr(answer, "columns") and hasattr(answer, "to_numpy"):
        answer = {str(name): answer[name] for name in answer.columns}
    if isinstance(answer, Mapping):
        return {str(name): _plain(values) for name, values in answer.items()}
    return {"prediction": _plain(answer)}


def _plain(values: Any) -> Any:
    array = np.asarray(values)
    if array.dtype.kind == "O" and array.size and not any(isinstance(v, str) for v in array.flat):
        array = np.asarray(array.tolist())  # numbers that a frame held as objects
    return array


def takes_dict(function: Callable[..., Any]) -> bool:
    """Whether the function's only parameter is annotated as a dict (or Mapping)."""
    parameters = list(inspect.signature(function).parameters.values())
    if len(parameters) != 1:
        return False
    annotation = parameters[0].annotation
    text = (
        annotation
        if isinstance(annotation, str)
        else getattr(annotation, "__name__", None) or str(annotation)
    )
    return text.split("[")[0].split(".")[-1] in ("dict", "Dict", "Mapping")


def to_frame(columns: Mapping[str, Any], dtypes: Mapping[str, str]) -> Any:
    """The columns as a DataFrame with the dtypes of the sample, as far as this pandas knows them."""
    import pandas as pd  # the user's own, and only where the function takes a DataFrame

    return pd.DataFrame({name: _series(pd, values, dtypes.get(name)) for name, values in columns.items()})


def _series(pd: Any, array: Any, dtype: str | None) -> Any:
    if dtype == "object":
        array = array.copy()
        array[array == None] = np.nan  # noqa: E711 - elementwise
        return pd.Series(array, dtype=object)
    if dtype == "object-none":
        return pd.Series(array, dtype=object)
    if dtype is None or array.ndim > 1 or array.dtype.name == dtype:
        return array
    if dtype.startswith("category:"):
        categories = json.loads(dtype[len("category:") :])
        if array.dtype.kind == "f" and all(isinstance(value, int) for value in categories):
            array = array.astype(object)
        return pd.Categorical.from_codes(
            pd.Index(categories).get_indexer(pd.Index(array)), categories=categories
        )
    if dtype.startswith("datetime64["):
        stamps = pd.Series(array)
        if "," in dtype:
            stamps = stamps.dt.tz_localize("UTC")
        try:
            return stamps.astype(dtype)
        except (TypeError, ValueError):  # pandas 1 has nanoseconds only
            return stamps
    if dtype == "str":
        try:
            return pd.array(array, dtype="str" if int(pd.__version__.split(".")[0]) >= 3 else "string")
        except (TypeError, ValueError):
            return pd.Series(array, dtype=object)
    return pd.Series(array).astype(dtype)


def die_with_parent(parent: int) -> None:
    """Has the system kill this process when the one that started it is gone."""
    try:
        import ctypes  # some Pythons are built without it

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    except (ImportError, OSError, AttributeError):
        threading.Thread(target=_watch_parent, args=(parent,), daemon=True).start()
    if os.getppid() != parent:
        os._exit(1)


def _watch_parent(parent: int) -> None:
    event = threading.Event()
    while os.getppid() == parent:
        event.wait(1.0)
    os._exit(1)


def limit_memory(most_bytes: int) -> None:
    import resource  # not everywhere

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if most_bytes:
        resource.setrlimit(resource.RLIMIT_AS, (most_bytes, most_bytes))


def load_function(path: str, name: str) -> Callable[..., Any]:
    """Runs the file and gives its function; the file's folder stays importable."""
    sys.dont_write_bytecode = True  # a bundle has only what it was sealed with
    sys.path.insert(0, os.path.dirname(os.path.abspath(path)))
    spec = importlib.util.spec_from_file_location("_fairway_model", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules["_fairway_model"] = module
    spec.loader.exec_module(module)
    function = getattr(module, name, None)
    if not callable(function):
        raise ImportError(f"{os.path.basename(path)} has no function {name!r}")
    return function  # type: ignore[no-any-return]


def told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:ERROR_CHARACTERS]


class Runner:
    """The loaded function and how it is called."""

    def __init__(self, start: Mapping[str, Any]) -> None:
        self.fields: list[str] = start["fields"]
        self.dtypes: Mapping[str, str] = start["dtypes"]
        self.function = load_function(start["file"], start["function"])
        self.takes_dict = takes_dict(self.function)
        if not self.takes_dict and importlib.util.find_spec("pandas") is None:
            raise ImportError(
                f"{start['function']} takes a DataFrame, and pandas is not among its requirements: add pandas, "
                "or annotate its parameter as dict to get arrays"
            )

    def run(self, arrays: Mapping[str, Any]) -> dict[str, Any]:
        if list(arrays) == [""]:
            packed = arrays[""]
            arrays = {name: packed[:, i] for i, name in enumerate(self.fields)}
        rows: Any = {name: arrays[name] for name in self.fields}
        if not self.takes_dict:
            rows = to_frame(rows, self.dtypes)
        return named_outputs(self.function(rows))


def serve(connection: socket.socket, request: Shared, response: Shared, runner: Runner) -> None:
    """Answers one message after the other, until the server is gone."""
    while True:
        message = receive(connection)
        if message is None:
            return
        answer: dict[str, Any] = {"id": message["id"]}
        try:
            request.map()
            outputs = runner.run(read(message["arrays"], request.memory))
            descriptions, blocks, size = lay_out(outputs)
            response.grow(size)
            write(blocks, response.memory)
            answer["arrays"] = descriptions
        except BufferFull as full:
            needed, most = full.args
            answer["error"] = f"its answer needs {needed:,} bytes of shared memory and may have {most:,}"
        except NotAnAnswer as error:
            answer["error"] = f"its answer cannot be carried: {error}"
        except BaseException as error:  # noqa: BLE001 - whatever user code raises, SystemExit too, fails one call
            traceback.print_exc()
            answer["error"] = "it raised " + told(error)
        send(connection, answer)


def main() -> int:
    descriptors = [int(text) for text in sys.argv[1:4]]
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    # A service manager may signal every process of a service. The server answers what it has begun and then ends
    # this one; a handler, unlike ignoring, is not inherited by what the user's code starts.
    signal.signal(signal.SIGTERM, lambda *_: None)
    connection = socket.socket(fileno=descriptors[0])
    start = receive(connection)
    if start is None:
        return 0
    die_with_parent(start["parent"])
    try:
        with contextlib.suppress(ImportError):
            limit_memory(start["memory_bytes"])
        runner = Runner(start)
    except BaseException as error:  # noqa: BLE001 - said to the server, which says it to people
        traceback.print_exc()
        send(connection, {"error": told(error)})
        return 1
    request, response = (Shared(descriptor, start["buffer_bytes"]) for descriptor in descriptors[1:])
    send(connection, {"python": platform.python_version(), "numpy": np.__version__})
    serve(connection, request, response, runner)
    return 0


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # threads that the user's code left behind do not hold the process
