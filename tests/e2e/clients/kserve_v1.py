"""KServe's own client, protocol V1, against Fairway.

python kserve_v1.py ADDRESS MODEL ROWS.json EXPECTED.json
"""

import asyncio
import json
import sys
from collections.abc import Awaitable
from pathlib import Path

import httpx
from kserve import InferenceRESTClient
from kserve.inference_client import RESTConfig


async def main(address: str, model: str, rows_file: str, expected_file: str) -> None:
    url = f"http://{address}"
    rows = json.loads(Path(rows_file).read_text())
    expected = json.loads(Path(expected_file).read_text())
    async with InferenceRESTClient(RESTConfig(protocol="v1", timeout=10)) as client:
        assert await client.is_server_live(url)
        assert await client.is_model_ready(url, model)
        answer = await client.infer(url, {"instances": rows}, model_name=model)
        assert answer == {"predictions": expected}, answer
        for call, expected_status in (
            (client.infer(url, {"instances": rows}, model_name="nobody"), 404),
            (client.is_model_ready(url, "nobody"), 404),
            (client.infer(url, {"instances": "no rows"}, model_name=model), 400),
            (client.explain(url, model, {"instances": rows}), 501),
        ):
            status, message, told = await refused(call)
            assert status == expected_status, message
            assert told in message
    print("InferenceRESTClient: right")


async def refused(call: Awaitable[object]) -> tuple[int, str, str]:
    """The status of a call that fails, what the client says about it, and what the server said."""
    try:
        await call
    except httpx.HTTPStatusError as error:
        return error.response.status_code, str(error), error.response.json()["error"]
    return 200, "", ""


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
