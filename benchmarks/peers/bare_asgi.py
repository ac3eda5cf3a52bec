"""The floor: a bare ASGI callable on uvicorn that decodes, runs ONNX Runtime and encodes, and checks nothing."""

import os
from typing import Any

import msgspec
import numpy as np
import onnxruntime as ort

options = ort.SessionOptions()
options.intra_op_num_threads = 1
session = ort.InferenceSession(os.environ["BENCH_MODEL"], options)
feed = session.get_inputs()[0].name
JSON = [(b"content-type", b"application/json")]


class Input(msgspec.Struct):
    name: str
    shape: list[int]
    datatype: str
    data: list[float]


class Body(msgspec.Struct):
    inputs: list[Input]


class Output(msgspec.Struct):
    name: str
    shape: list[int]
    datatype: str
    data: Any


class Answer(msgspec.Struct):
    model_name: str
    outputs: list[Output]


decode = msgspec.json.Decoder(Body).decode
encode = msgspec.json.Encoder().encode


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        return
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    sent = decode(body).inputs[0]
    matrix = np.array(sent.data, dtype=np.float32).reshape(sent.shape)
    label, probabilities = session.run(None, {feed: matrix})
    answer = encode(
        Answer(
            "lr",
            [
                Output("label", list(label.shape), "INT64", label.ravel().tolist()),
                Output("probabilities", list(probabilities.shape), "FP32", probabilities.ravel().tolist()),
            ],
        )
    )
    head = [*JSON, (b"content-length", str(len(answer)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    await send({"type": "http.response.body", "body": answer})
