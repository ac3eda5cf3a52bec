"""The same ONNX model behind MLServer."""

import os

import numpy as np
import onnxruntime as ort
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse


class OnnxModel(MLModel):
    async def load(self):
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = ort.InferenceSession(os.environ["BENCH_MODEL"], options)
        self.feed = self.session.get_inputs()[0].name
        return True

    async def predict(self, request):
        matrix = NumpyCodec.decode_input(request.inputs[0]).astype(np.float32)
        label, probabilities = self.session.run(None, {self.feed: matrix})
        outputs = [
            NumpyCodec.encode_output("label", label),
            NumpyCodec.encode_output("probabilities", probabilities),
        ]
        return InferenceResponse(model_name="lr", outputs=outputs)
