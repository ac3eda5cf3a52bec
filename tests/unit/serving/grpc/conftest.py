"""A gRPC port in this process: the real server on a real socket and loop, around a plane of a test's own."""

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import grpc
import numpy as np
import pytest
import uvloop

from fairway.core.settings import Settings
from fairway.inference.plane import Plane
from fairway.security.access import Access
from fairway.serving.app import DataApp
from fairway.serving.grpc import messages
from fairway.serving.grpc.server import GrpcServer
from tests.planes import plane

INFER = "/inference.GRPCInferenceService/"


class Port:
    """A port to call; `ask` makes a unary call with messages of our own pool through grpcio."""

    def __init__(
        self, number: int, app: DataApp, server: GrpcServer, loop: asyncio.AbstractEventLoop
    ) -> None:
        self.number = number
        self.app = app
        self.server = server
        self.loop = loop
        self.address = f"127.0.0.1:{number}"
        self.sockets: list[socket.socket] = []
        self.channel = grpc.insecure_channel(
            self.address,
            options=[("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)],
        )

    def ask(self, path: str, request: Any, answer: str, **options: Any) -> Any:
        return self.asked(path, request, answer, **options)[0]

    def asked(self, path: str, request: Any, answer: str, **options: Any) -> tuple[Any, grpc.Call]:
        call = self.channel.unary_unary(
            path, request_serializer=_bytes, response_deserializer=messages.message(answer).FromString
        )
        return call.with_call(request, timeout=options.pop("timeout", 20), **options)

    def infer(self, request: Any, **options: Any) -> Any:
        return self.ask(INFER + "ModelInfer", request, "inference.ModelInferResponse", **options)

    def refused(self, path: str, request: Any, **options: Any) -> grpc.RpcError:
        """The error that a call ends with."""
        call = self.channel.unary_unary(path, request_serializer=_bytes)
        with pytest.raises(grpc.RpcError) as caught:
            call(request, timeout=options.pop("timeout", 20), **options)
        return caught.value

    def call(self, function: Callable[[], Any]) -> Any:
        """Runs something in the server's loop."""

        async def run() -> Any:
            return function()

        return asyncio.run_coroutine_threadsafe(run(), self.loop).result(10)

    def connect(self) -> socket.socket:
        self.sockets.append(socket.create_connection(("127.0.0.1", self.number), timeout=10))
        return self.sockets[-1]


def _bytes(message: Any) -> bytes:
    return message if isinstance(message, bytes) else message.SerializeToString()


Serve = Callable[..., Port]


@contextmanager
def serving(plane: Plane, settings: Settings, access: Access | None = None) -> Iterator[Port]:
    app = DataApp(plane, settings, access=access)
    loop = uvloop.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="grpc-test")
    thread.start()
    listening = socket.create_server(("127.0.0.1", 0))
    server = GrpcServer(app)
    asyncio.run_coroutine_threadsafe(server.start(listening), loop).result(10)
    port = Port(listening.getsockname()[1], app, server, loop)
    try:
        yield port
    finally:
        port.channel.close()
        for connected in port.sockets:
            connected.close()
        asyncio.run_coroutine_threadsafe(server.stop(5.0), loop).result(20)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
        app._pool.shutdown()
        plane.close()


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts ports; all of them stop with the test."""
    with ExitStack() as stack:

        def start(
            given: Plane | None = None, settings: Settings | None = None, access: Access | None = None
        ) -> Port:
            return stack.enter_context(serving(given or plane(), settings or Settings(), access))

        yield start


@pytest.fixture
def port(serve: Serve) -> Port:
    return serve()


def asking(**changes: Any) -> Any:
    """A ModelInferRequest for `m` that it answers: sum [4, 6]."""
    request = messages.message("inference.ModelInferRequest")(
        **{
            "model_name": "m",
            **{k: v for k, v in changes.items() if k in ("model_name", "model_version", "id")},
        }
    )
    for name, values in (("a", [1.0, 2.0]), ("b", [3.0, 4.0])):
        request.inputs.add(name=name, datatype="FP64", shape=[2])
        request.raw_input_contents.append(np.array(values).tobytes())
    return request


def raw(answer: Any, number: int = 0) -> np.ndarray:
    """A float64 output."""
    return np.frombuffer(answer.raw_output_contents[number]).reshape(answer.outputs[number].shape)
