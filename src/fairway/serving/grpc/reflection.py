"""Server reflection: what grpcurl and its like ask to find services and messages. v1alpha is the same on the wire.

Source: grpc/grpc-proto, grpc/reflection/v1/reflection.proto; grpc/doc/server-reflection.md.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from fairway.inference.work import now
from fairway.serving.grpc.answering import Peer
from fairway.serving.grpc.calls import fail
from fairway.serving.grpc.method import Method
from fairway.serving.grpc.status import OPENING, Status, success
from fairway.serving.grpc.stream import Call, Stream

if TYPE_CHECKING:
    from fairway.serving.grpc.service import GrpcService

_REQUEST = "grpc.reflection.v1.ServerReflectionRequest"
_RESPONSE = "grpc.reflection.v1.ServerReflectionResponse"
_WAITING = 64


def respond(data: bytes) -> bytes:
    """The answer to one request. Raises MalformedInput. Imports protobuf: run it in a thread."""
    # As in models.py: for the first caller who needs it.
    from fairway.serving.grpc.messages import message, parse, pool, services

    asked = parse(_REQUEST, data)
    answer = message(_RESPONSE)(valid_host=asked.host, original_request=asked)
    kind = asked.WhichOneof("message_request")
    try:
        if kind == "list_services":
            for name in services():
                answer.list_services_response.service.add(name=name)
        elif kind == "file_by_filename":
            _add_files(answer, pool().FindFileByName(asked.file_by_filename))
        elif kind == "file_containing_symbol":
            _add_files(answer, pool().FindFileContainingSymbol(asked.file_containing_symbol))
        elif kind == "all_extension_numbers_of_type":
            found = pool().FindMessageTypeByName(asked.all_extension_numbers_of_type)
            answer.all_extension_numbers_response.base_type_name = found.full_name
        else:
            raise KeyError(kind or "nothing")
    except KeyError as error:
        answer.error_response.error_code = Status.not_found
        answer.error_response.error_message = f"there is no {str(error.args[0])[:200]} here"
    return bytes(answer.SerializeToString())


def _add_files(answer: Any, first: Any) -> None:
    """A file's descriptor and those of all it imports."""
    from fairway.serving.grpc.messages import files  # as above

    names, waiting = [], [first]
    while waiting:
        file = waiting.pop(0)
        if file.name not in names:
            names.append(file.name)
            waiting += file.dependencies
    answer.file_descriptor_response.file_descriptor_proto.extend(files()[name] for name in names)


class Reflection(Call):
    """One call: requests are answered in order."""

    def __init__(self, service: GrpcService, connection: Peer, stream: Stream) -> None:
        self._service = service
        self._connection = connection
        self._stream = stream
        self._request_id = service.arrival(stream.head, now()).request_id
        self._messages: deque[bytes] = deque()
        self._busy = self._over = self._gone = False

    @property
    def full(self) -> bool:
        return len(self._messages) >= _WAITING

    @property
    def idle(self) -> bool:
        return not self._busy and not self._messages

    def received(self, message: bytes, compressed: bool) -> None:
        self._messages.append(message)
        self._next()

    def ended(self) -> None:
        self._over = True
        self._next()

    def cancelled(self) -> None:
        self._gone = True
        self._messages.clear()

    def _next(self) -> None:
        if self._busy or self._gone:
            return
        if self._messages:
            self._busy = True
            self._service.start(self._answer(self._messages.popleft()))
        elif self._over:
            block = success(None, self._request_id)
            self._connection.close(self._stream, block if self._stream.opened else OPENING + block)
        if not self.full:
            self._connection.take_more(self._stream)

    async def _answer(self, data: bytes) -> None:
        host = self._service.host
        try:
            answer = await host.in_thread(respond, data)
        except Exception as error:  # noqa: BLE001 - told to the caller, and logged
            if not self._gone:
                self.cancelled()
                self._service.log(error, self._request_id, "grpc")
                fail(self._connection, self._stream, error, self._request_id, safe=host.safe)
            return
        self._busy = False
        if not self._gone:
            self._connection.open(self._stream, OPENING)
            self._connection.send(self._stream, answer)
            self._next()


METHODS = tuple(
    Method(f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo", "infer", stream=Reflection)
    for version in ("v1", "v1alpha")
)
