"""The same ONNX model behind BentoML."""

import os

import bentoml
import numpy as np
import onnxruntime as ort


@bentoml.service(workers=1)
class Service:
    def __init__(self) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = ort.InferenceSession(os.environ["BENCH_MODEL"], options)
        self.feed = self.session.get_inputs()[0].name

    @bentoml.api
    def infer(self, rows: list) -> dict:
        label, probabilities = self.session.run(None, {self.feed: np.array(rows, dtype=np.float32)})
        return {"label": label.tolist(), "probabilities": probabilities.tolist()}
