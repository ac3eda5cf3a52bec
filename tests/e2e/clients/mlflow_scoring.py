"""MLflow's own client, payloads and scoring server, against a Fairway that serves the same model.

    python mlflow_scoring.py ADDRESS MODEL.joblib DATA.csv FOLDER

Runs in an environment without Fairway. Prints one line for each comparison; anything else is a traceback.
"""

import json
import sys
import urllib.error
import urllib.request
from pathlib import Path

import joblib
import mlflow.pyfunc
import mlflow.sklearn
import pandas as pd
from mlflow.models import convert_input_example_to_serving_input, infer_signature
from mlflow.pyfunc import scoring_server
from mlflow.pyfunc.scoring_server.client import ScoringServerClient


def asked(address: str, body: str, kind: str) -> tuple[int, object]:
    """What Fairway answers."""
    request = urllib.request.Request(f"http://{address}/invocations", body.encode(), {"Content-Type": kind})
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def main(address: str, model_file: str, data_file: str, folder: str) -> None:
    estimator = joblib.load(model_file)
    rows = pd.read_csv(data_file)
    mlflow.sklearn.save_model(
        estimator,
        folder,
        signature=infer_signature(rows, estimator.predict(rows)),
        serialization_format="cloudpickle",
        pip_requirements=[],
    )
    pyfunc = mlflow.pyfunc.load_model(folder)
    schema = pyfunc.metadata.get_input_schema()

    def theirs(body: str, kind: str) -> tuple[int, object]:
        answer = scoring_server.invocations(body, kind, pyfunc, schema)
        return answer.status, json.loads(answer.response) if answer.status == 200 else answer.response

    records = json.loads(rows.to_json(orient="records"))
    columns = rows.to_dict(orient="list")
    split = json.loads(rows.to_json(orient="split"))
    payloads = {
        "dataframe_split": json.dumps({"dataframe_split": split}),
        "dataframe_records": json.dumps({"dataframe_records": records}),
        "instances, rows": json.dumps({"instances": records}),
        "instances, columns": json.dumps({"instances": columns}),
        "inputs, rows": json.dumps({"inputs": records}),
        "inputs, columns": json.dumps({"inputs": columns}),
        "params": json.dumps({"dataframe_split": split, "params": {}}),
        "unknown keys": json.dumps({"dataframe_split": split, "other": [1]}),
        "made from a frame": convert_input_example_to_serving_input(rows),
        "made from rows": convert_input_example_to_serving_input(columns),
        "one row": json.dumps({"dataframe_records": records[:1]}),
    }
    for name, body in payloads.items():
        expected, found = theirs(body, "application/json"), asked(address, body, "application/json")
        assert found == expected, (name, expected, found)
        print("same answer:", name)
    csv = rows.to_csv(index=False)
    assert asked(address, csv, "text/csv") == theirs(csv, "text/csv")
    print("same answer: CSV")
    for kind in ("application/json; charset=latin-1", "application/json; format=x", "text/plain"):
        expected, found = theirs("{}", kind), asked(address, "{}", kind)
        assert found[0] == expected[0] == 415, (kind, expected, found)
    print("same status: what is not read")

    host, port = address.split(":")
    client = ScoringServerClient(host, port)
    client.wait_server_ready(timeout=10)
    assert client.get_version()
    labels = estimator.predict(rows).tolist()
    for data in (rows, records):
        predictions = client.invoke(data).get_predictions()
        assert predictions[0].tolist() == labels, predictions
    print("ScoringServerClient: right")


if __name__ == "__main__":
    main(*sys.argv[1:])
    assert Path(sys.argv[4]).is_dir()
