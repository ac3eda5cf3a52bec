"""TorchServe's inference API: `/predictions/NAME`.

Its handlers decide what bodies mean; what is common to those of tables and tensors is read: a list of rows, one row as
an object, and the forms of `/invocations`. The answer is wrapped as the body was.

Source: pytorch/serve, docs/inference_api.md and frontend's ErrorResponse.
"""

from __future__ import annotations

import msgspec

from fairway.core.errors import (
    AliasNotFound,
    ModelNotFound,
    NotFound,
    PayloadTooLarge,
    Unavailable,
    VersionNotFound,
)
from fairway.serving.entrance import Entry, Written
from fairway.serving.errors import error_text, status_of
from fairway.serving.invocations import InvocationsCodec

_TYPES: tuple[tuple[type[Exception] | tuple[type[Exception], ...], str], ...] = (
    (ModelNotFound, "ModelNotFoundException"),
    ((VersionNotFound, AliasNotFound), "ModelVersionNotFoundException"),
    (NotFound, "ResourceNotFoundException"),
    (PayloadTooLarge, "RequestEntityTooLargeException"),
    (Unavailable, "ServiceUnavailableException"),
)


class TorchserveCodec(InvocationsCodec):
    def __init__(self) -> None:
        super().__init__(bare=True, protocol="torchserve")

    def word(self, error: Exception, request_id: str, *, safe: bool) -> tuple[int, Written]:
        status = int(status_of(error))
        kind = next((name for kinds, name in _TYPES if isinstance(error, kinds)), None)
        body = {
            "code": status,
            "type": kind or ("BadRequestException" if status < 500 else "InternalServerException"),
            "message": error_text(error, safe=safe),
            "request_id": request_id,
        }
        return status, Written(msgspec.json.encode(body))


_CODEC = TorchserveCodec()
ENTRIES = tuple(
    Entry(method, path, "infer", codec=_CODEC)
    for path in ("/predictions/{model}", "/predictions/{model}/{version}")
    for method in ("POST", "PUT")
)
