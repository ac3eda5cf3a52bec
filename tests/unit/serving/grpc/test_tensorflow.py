"""TensorFlow Serving over gRPC, with messages of the published numbers through gRPC's own client."""

from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from fairway.core.columns import Columns, Outputs
from fairway.core.contract import Contract, DType, Field, Output, Task
from fairway.core.errors import MalformedInput
from fairway.core.route import everything_to
from fairway.inference.live import LiveModel
from fairway.inference.repository import State
from fairway.security.access import Access
from fairway.serving.grpc.messages import message
from fairway.serving.grpc.tensorflow_tensors import NUMBER_OF, fill_tensor, read_tensor
from tests.planes import live_version, plane
from tests.unit.serving.grpc.conftest import Port, Serve
from tests.unit.serving.grpc.test_calls import Repository, counted

PREDICTION = "/tensorflow.serving.PredictionService/"
MODEL = "/tensorflow.serving.ModelService/"
Tensor = message("tensorflow.TensorProto")


def made(name: str, **values: Any) -> Any:
    return message(f"tensorflow.serving.{name}")(**values)


def tensor(values: Any, dtype: str = "DT_DOUBLE", field: str = "double_val") -> Any:
    return Tensor(dtype=dtype, tensor_shape={"dim": [{"size": len(values)}]}, **{field: values})


def predicting(**spec: Any) -> Any:
    request = made("PredictRequest", model_spec={"name": "m", **spec})
    request.inputs["a"].CopyFrom(tensor([1.0, 2.0]))
    request.inputs["b"].CopyFrom(
        Tensor(
            dtype="DT_DOUBLE",
            tensor_content=np.array([3.0, 4.0]).tobytes(),
            tensor_shape={"dim": [{"size": 2}]},
        )
    )
    return request


def predict(port: Port, request: Any, **options: Any) -> Any:
    return port.ask(PREDICTION + "Predict", request, "tensorflow.serving.PredictResponse", **options)


def test_predict_answers_every_output_in_typed_fields(port: Port) -> None:
    answer = predict(port, predicting())
    assert (answer.model_spec.name, answer.model_spec.version.value, answer.model_spec.signature_name) == (
        "m",
        1,
        "serving_default",
    )
    assert list(answer.outputs["sum"].double_val) == [4.0, 6.0]
    assert [dim.size for dim in answer.outputs["both"].tensor_shape.dim] == [2, 2]
    assert counted(port, model="m", protocol="tfs-grpc", code="ok") == 1


def test_versions_labels_signatures_and_filters(port: Port) -> None:
    assert set(predict(port, predicting(version={"value": 1}, signature_name="sum")).outputs) == {"sum"}
    filtered = predicting(version_label="champion")
    filtered.output_filter.append("both")
    assert set(predict(port, filtered).outputs) == {"both"}
    for request, code, says in (
        (predicting(version={"value": 5}), "NOT_FOUND", "no version 5"),
        (predicting(version_label="x"), "NOT_FOUND", "no alias 'x'"),
        (predicting(signature_name="x"), "INVALID_ARGUMENT", 'Serving signature key "x" not found'),
        (made("PredictRequest", model_spec={"name": "x"}), "NOT_FOUND", "no model 'x'"),
        (made("PredictRequest"), "NOT_FOUND", "no model ''"),
    ):
        error = port.refused(PREDICTION + "Predict", request)
        assert (error.code().name, says in error.details()) == (code, True), error.details()
    filtered.output_filter.append("nope")
    assert "not found in signature: nope" in port.refused(PREDICTION + "Predict", filtered).details()


def test_every_wrong_input_is_named(port: Port) -> None:
    request = predicting()
    request.inputs["a"].dtype = 8
    request.inputs["b"].tensor_content = b"x"
    details = port.refused(PREDICTION + "Predict", request).details()
    assert "a its dtype 8" in details
    assert "b its shape needs 16 bytes, 1 came" in details


NUMERIC = sorted(dtype for dtype in DType if dtype.is_numeric)


@pytest.mark.parametrize("dtype", NUMERIC)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_tensors_go_there_and_back_bit_for_bit(dtype: DType, data: st.DataObject) -> None:
    shape = npst.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=3)
    values = data.draw(npst.arrays(np.dtype(dtype.value), shape))
    proto = Tensor()
    fill_tensor(proto, Output(name="o", dtype=dtype, shape=values.shape[1:]), values)
    typed = read_tensor(proto)
    content = Tensor(dtype=NUMBER_OF[dtype], tensor_shape=proto.tensor_shape, tensor_content=values.tobytes())
    raw = read_tensor(content)
    for found in (typed, raw):
        assert found.shape == values.shape
        np.testing.assert_array_equal(found, values)
        if values.dtype.kind != "f" or not np.isnan(values).any():
            assert found.astype(values.dtype).tobytes() == values.tobytes()


def test_a_short_list_is_filled_with_its_last_value() -> None:
    short = Tensor(dtype="DT_FLOAT", tensor_shape={"dim": [{"size": 3}, {"size": 1}]}, float_val=[1.0, 2.0])
    assert read_tensor(short).tolist() == [[1.0], [2.0], [2.0]]
    nothing = Tensor(dtype="DT_INT64", tensor_shape={"dim": [{"size": 2}]})
    assert read_tensor(nothing).tolist() == [0, 0]
    texts = Tensor(dtype="DT_STRING", tensor_shape={"dim": [{"size": 2}]}, string_val=["é".encode()])
    assert read_tensor(texts) == ["é", "é"]


def test_bfloat16_is_read() -> None:
    proto = Tensor(dtype="DT_BFLOAT16", tensor_shape={"dim": [{"size": 2}]}, half_val=[0x3F80, 0xC020])
    assert read_tensor(proto).tolist() == [1.0, -2.5]


@pytest.mark.parametrize(
    ("proto", "says"),
    [
        (Tensor(dtype="DT_FLOAT", float_val=[1.0]), "rows first"),
        (Tensor(dtype="DT_FLOAT", tensor_shape={"unknown_rank": True}), "rows first"),
        (Tensor(dtype="DT_FLOAT", tensor_shape={"dim": [{"size": -1}]}), "rows first"),
        (
            Tensor(dtype="DT_FLOAT", tensor_shape={"dim": [{"size": 1}]}, float_val=[1, 2]),
            "needs 1 values, 2 came",
        ),
        (Tensor(dtype="DT_FLOAT", tensor_shape={"dim": [{"size": 2**40}]}), "send all of them"),
        (Tensor(dtype="DT_FLOAT", tensor_shape={"dim": [{"size": 2**60}, {"size": 2**60}]}), "far more"),
        (Tensor(dtype="DT_INT8", tensor_shape={"dim": [{"size": 1}]}, int_val=[300]), "does not fit int8"),
        (Tensor(dtype="DT_BOOL", tensor_shape={"dim": [{"size": 1}]}, tensor_content=b"\2"), "0 or 1"),
        (Tensor(dtype="DT_STRING", tensor_shape={"dim": [{"size": 1}]}, tensor_content=b"x"), "string_val"),
        (Tensor(dtype="DT_STRING", tensor_shape={"dim": [{"size": 1}]}, string_val=[b"\xff"]), "UTF-8"),
        (Tensor(dtype="DT_COMPLEX64", tensor_shape={"dim": [{"size": 1}]}), "not one that is read"),
    ],
)
def test_tensors_that_cannot_be_are_refused(proto: Any, says: str) -> None:
    with pytest.raises(MalformedInput, match=says):
        read_tensor(proto)


JUDGED = Contract(
    inputs=(
        Field(name="x", dtype=DType.float64),
        Field(name="kind", dtype=DType.string),
        Field(name="on", dtype=DType.bool),
    ),
    outputs=(
        Output(name="label", dtype=DType.string),
        Output(name="probabilities", dtype=DType.float32, shape=(2,), labels=("no", "yes")),
    ),
    task=Task.classification,
)
MEASURED = Contract(
    inputs=(Field(name="x", dtype=DType.float64),),
    outputs=(Output(name="prediction", dtype=DType.float64),),
    task=Task.regression,
)


class Judging:
    def predict(self, columns: Columns) -> Outputs:
        high = columns["x"] / 10
        labels = np.where(high > 0.5, "yes", "no").astype(object)
        return {"label": labels, "probabilities": np.stack([1 - high, high], axis=1).astype(np.float32)}

    def unload(self) -> None:
        return None


class Measuring:
    def predict(self, columns: Columns) -> Outputs:
        return {"prediction": columns["x"] * 2}

    def unload(self) -> None:
        return None


@pytest.fixture
def judges(serve: Serve) -> Port:
    return serve(
        plane(
            LiveModel(everything_to("c", 1), {1: live_version(1, Judging(), model="c", contract=JUDGED)}, {}),
            LiveModel(
                everything_to("r", 1), {1: live_version(1, Measuring(), model="r", contract=MEASURED)}, {}
            ),
        )
    )


def example(**features: Any) -> Any:
    found = message("tensorflow.Example")()
    for name, value in features.items():
        kind = {float: "float_list", int: "int64_list", bytes: "bytes_list"}[type(value)]
        getattr(found.features.feature[name], kind).value.append(value)
    return found


def input_of(*examples: Any, context: Any = None) -> dict[str, Any]:
    if context is not None:
        return {"example_list_with_context": {"examples": examples, "context": context}}
    return {"example_list": {"examples": examples}}


def test_classify(judges: Port) -> None:
    request = made(
        "ClassificationRequest",
        model_spec={"name": "c"},
        input=input_of(example(x=8.0, kind=b"k", on=1), example(x=1.0, kind=b"", on=0)),
    )
    answer = judges.ask(PREDICTION + "Classify", request, "tensorflow.serving.ClassificationResponse")
    rows = [{one.label: round(one.score, 4) for one in row.classes} for row in answer.result.classifications]
    assert rows == [{"no": 0.2, "yes": 0.8}, {"no": 0.9, "yes": 0.1}]
    assert answer.model_spec.version.value == 1


def test_context_stands_in_every_example(judges: Port) -> None:
    given = input_of(example(x=8.0), example(x=1.0), context=example(kind=b"k", on=1))
    request = made(
        "ClassificationRequest", model_spec={"name": "c", "signature_name": "classification"}, input=given
    )
    answer = judges.ask(PREDICTION + "Classify", request, "tensorflow.serving.ClassificationResponse")
    assert len(answer.result.classifications) == 2


def test_regress(judges: Port) -> None:
    request = made(
        "RegressionRequest", model_spec={"name": "r"}, input=input_of(example(x=1.5), example(x=2))
    )
    answer = judges.ask(PREDICTION + "Regress", request, "tensorflow.serving.RegressionResponse")
    assert [one.value for one in answer.result.regressions] == [3.0, 4.0]


def test_multi_inference(judges: Port) -> None:
    task = {"model_spec": {"name": "r"}, "method_name": "tensorflow/serving/regress"}
    request = made("MultiInferenceRequest", tasks=[task, task], input=input_of(example(x=1.0)))
    answer = judges.ask(PREDICTION + "MultiInference", request, "tensorflow.serving.MultiInferenceResponse")
    assert [[one.value for one in result.regression_result.regressions] for result in answer.results] == [
        [2.0],
        [2.0],
    ]
    for changed, says in (
        ({"tasks": []}, "at least one task"),
        ({"tasks": [{"model_spec": {"name": "r"}, "method_name": "x"}]}, "Unsupported signature method_name"),
        ({"tasks": [task, {**task, "model_spec": {"name": "c"}}]}, "for one model"),
    ):
        wrong = made("MultiInferenceRequest", **{"input": input_of(example(x=1.0)), **changed})
        assert says in judges.refused(PREDICTION + "MultiInference", wrong).details()


@pytest.mark.parametrize(
    ("method", "name", "model", "given", "says"),
    [
        ("Classify", "Classification", "c", {}, "Input is empty"),
        ("Classify", "Classification", "c", input_of(), "Input is empty"),
        ("Classify", "Classification", "c", input_of(example(x=1.0)), "kind"),
        ("Classify", "Classification", "r", input_of(example(x=1.0)), "Expected classification signature"),
        ("Regress", "Regression", "c", input_of(example(x=1.0)), "Expected regression signature"),
        ("Regress", "Regression", "r", input_of(example(x=b"\xff")), "UTF-8"),
        ("Regress", "Regression", "r", input_of(example(x=b"text")), "x"),
    ],
)
def test_examples_that_do_not_fit_are_refused(
    judges: Port, method: str, name: str, model: str, given: Any, says: str
) -> None:
    request = made(f"{name}Request", model_spec={"name": model}, input=given)
    error = judges.refused(PREDICTION + method, request)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert says in error.details()


def test_metadata_has_the_signatures(judges: Port) -> None:
    request = made("GetModelMetadataRequest", model_spec={"name": "c"}, metadata_field=["signature_def"])
    answer = judges.ask(
        PREDICTION + "GetModelMetadata", request, "tensorflow.serving.GetModelMetadataResponse"
    )
    packed = answer.metadata["signature_def"]
    assert packed.type_url == "type.googleapis.com/tensorflow.serving.SignatureDefMap"
    signatures = message("tensorflow.serving.SignatureDefMap").FromString(packed.value).signature_def
    default = signatures["serving_default"]
    assert default.method_name == "tensorflow/serving/predict"
    assert {
        name: (info.dtype, [dim.size for dim in info.tensor_shape.dim])
        for name, info in default.inputs.items()
    } == {"x": (2, [-1]), "kind": (7, [-1]), "on": (10, [-1])}
    assert set(default.outputs) == {"label", "probabilities"}
    assert signatures["classification"].method_name == "tensorflow/serving/classify"
    for field, says in (([], "at least one metadata_field"), (["x"], "not supported")):
        wrong = made("GetModelMetadataRequest", model_spec={"name": "c"}, metadata_field=field)
        assert says in judges.refused(PREDICTION + "GetModelMetadata", wrong).details()


def test_status(port: Port) -> None:
    for spec in ({}, {"version": {"value": 1}}, {"version_label": "champion"}):
        request = made("GetModelStatusRequest", model_spec={"name": "m", **spec})
        [told] = port.ask(
            MODEL + "GetModelStatus", request, "tensorflow.serving.GetModelStatusResponse"
        ).model_version_status
        assert (told.version, told.state, told.status.error_code) == (1, 30, 0)
    for spec in ({"name": "x"}, {"name": "m", "version": {"value": 4}}):
        error = port.refused(MODEL + "GetModelStatus", made("GetModelStatusRequest", model_spec=spec))
        assert error.code() is grpc.StatusCode.NOT_FOUND


def test_a_new_config_loads_what_it_lists_and_unloads_the_rest(serve: Serve) -> None:
    port = serve(access=Access(open_admin=True))
    port.app.repository = repository = Repository()

    def reload(*names: str, **more: Any) -> Any:
        listed = {"config": [{"name": name, "base_path": "/x", **more} for name in names]}
        return made("ReloadConfigRequest", config={"model_config_list": listed})

    answer = port.ask(
        MODEL + "HandleReloadConfigRequest", reload("n"), "tensorflow.serving.ReloadConfigResponse"
    )
    assert answer.status.error_code == 0
    assert repository.calls == [("load", "n"), ("unload", "m")]
    assert repository.states == {"m": State.unloaded, "n": State.ready}
    for wrong, code in (
        (made("ReloadConfigRequest"), "INVALID_ARGUMENT"),
        (reload("n", "n"), "INVALID_ARGUMENT"),
        (reload("n", version_labels={"a": 1}), "UNIMPLEMENTED"),
        (reload("gone"), "NOT_FOUND"),
    ):
        assert port.refused(MODEL + "HandleReloadConfigRequest", wrong).code().name == code


def test_a_new_config_is_for_admins(port: Port) -> None:
    error = port.refused(MODEL + "HandleReloadConfigRequest", made("ReloadConfigRequest"))
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED
