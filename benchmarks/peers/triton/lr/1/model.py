"""The same ONNX model behind Triton's Python backend, the only backend that PyPI has."""

import os
import sys

sys.path.insert(0, os.environ["BENCH_SITE"])
import numpy as np
import onnxruntime as ort
import triton_python_backend_utils as pb


class TritonPythonModel:
    def initialize(self, args):
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = ort.InferenceSession(os.environ["BENCH_MODEL"], options)
        self.feed = self.session.get_inputs()[0].name

    def execute(self, requests):
        inputs = [pb.get_input_tensor_by_name(request, "X").as_numpy() for request in requests]
        labels, probabilities = self.session.run(None, {self.feed: np.concatenate(inputs)})
        answers, start = [], 0
        for rows in inputs:
            stop = start + len(rows)
            answers.append(
                pb.InferenceResponse(
                    [
                        pb.Tensor("label", labels[start:stop].reshape(-1, 1)),
                        pb.Tensor("probabilities", probabilities[start:stop]),
                    ]
                )
            )
            start = stop
        return answers
