"""KServe's own client, protocol V2 over REST, against Fairway: JSON, binary tensors, health.

python kserve_v2.py ADDRESS MODEL VALUES.json EXPECTED.json
"""

import asyncio
import json
import sys
from pathlib import Path

import httpx
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferOutput, InferRequest
from kserve.inference_client import RESTConfig
from kserve.protocol.infer_type import RequestedOutput


async def main(address: str, model: str, values_file: str, expected_file: str) -> None:
    url = f"http://{address}"
    values = np.array(json.loads(Path(values_file).read_text()))
    expected = np.array(json.loads(Path(expected_file).read_text()))
    async with InferenceRESTClient(RESTConfig(protocol="v2", timeout=10)) as client:
        assert await client.is_server_live(url)
        assert await client.is_server_ready(url)
        assert await client.is_model_ready(url, model)
        for binary_in in (False, True):
            for binary_out in (None, False, True):
                given = InferInput("X", list(values.shape), "FP64")
                given.set_data_from_numpy(values, binary_data=binary_in)
                outputs = (
                    None
                    if binary_out is None
                    else [RequestedOutput("prediction", {"binary_data": binary_out})]
                )
                request = InferRequest(model, [given], request_id="mine", request_outputs=outputs)
                answer = await client.infer(url, request, model_name=model)
                assert (answer.id, answer.model_name) == ("mine", model)
                (output,) = answer.outputs
                assert isinstance(output, InferOutput)
                np.testing.assert_array_equal(output.as_numpy(), expected)
        status = 200
        try:
            await client.infer(url, InferRequest("nobody", [given]), model_name="nobody")
        except httpx.HTTPStatusError as error:
            status = error.response.status_code
        assert status == 404, status
    print("InferenceRESTClient, V2: right")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
