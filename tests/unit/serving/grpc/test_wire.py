"""The short reader and writer of ModelInfer say what protobuf's own classes say, or nothing."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from fairway.serving.grpc import wire
from fairway.serving.grpc.messages import message

Request = message("inference.ModelInferRequest")
Response = message("inference.ModelInferResponse")
texts = st.text(max_size=8)
sizes = st.lists(st.integers(-(2**63), 2**63 - 1), max_size=4)


@st.composite
def requests(draw: st.DrawFn) -> Any:
    """Any request, most of them of the shape that the short reader knows."""
    request = Request(model_name=draw(texts), model_version=draw(texts), id=draw(texts))
    for _ in range(draw(st.integers(0, 3))):
        tensor = request.inputs.add(name=draw(texts), datatype=draw(texts), shape=draw(sizes))
        if draw(st.integers(0, 9)) == 0:
            tensor.contents.fp32_contents.extend([1.0, 2.0])
        if draw(st.integers(0, 9)) == 0:
            tensor.parameters["p"].int64_param = 1
        request.raw_input_contents.append(draw(st.binary(max_size=300)))
    for _ in range(draw(st.integers(0, 2))):
        request.outputs.add(name=draw(texts))
    if draw(st.integers(0, 9)) == 0:
        request.parameters["key"].string_param = "k"
    if draw(st.integers(0, 9)) == 0:
        request.raw_input_contents.append(b"")
    return request


def check(data: bytes) -> None:
    """What was read is what the message class reads, and what it cannot say was not there."""
    found = wire.read_infer(data)
    if found is None:
        return
    read = Request.FromString(data)
    assert (found.model, found.version, found.id) == (read.model_name, read.model_version, read.id)
    assert [(t.name, t.datatype, t.shape) for t in found.inputs] == [
        (t.name, t.datatype, list(t.shape)) for t in read.inputs
    ]
    assert found.raw == list(read.raw_input_contents)
    assert (found.wanted or ()) == tuple(output.name for output in read.outputs)
    assert not read.parameters
    assert not any(t.parameters or t.HasField("contents") for t in read.inputs)
    assert not any(output.parameters for output in read.outputs)


@given(requests())
def test_reading_agrees_with_the_message_class(request: Any) -> None:
    data = request.SerializeToString()
    check(data)
    plain = (
        bool(request.inputs)
        and len(request.inputs) == len(request.raw_input_contents)
        and not request.parameters
        and not any(t.parameters or t.HasField("contents") for t in request.inputs)
    )
    if plain:
        assert wire.read_infer(data) is not None, "the common shape went the long way"


@given(requests(), st.data())
def test_reading_damaged_bytes_agrees_or_leaves_them(request: Any, data: st.DataObject) -> None:
    damaged = bytearray(request.SerializeToString())
    for _ in range(data.draw(st.integers(1, 3))):
        if damaged:
            place = data.draw(st.integers(0, len(damaged) - 1))
            damaged[place : place + 1] = data.draw(st.binary(max_size=2))
    check(bytes(damaged))


@given(st.binary(max_size=60))
def test_reading_any_bytes_agrees_or_leaves_them(data: bytes) -> None:
    check(data)


def test_unpacked_shapes_and_long_lengths_go_the_long_way_or_agree() -> None:
    tensor = b"\x0a\x01a\x12\x04FP32\x18\x02\x18\x03"  # shape as single varints
    data = b"\x0a\x01m\x2a" + bytes([len(tensor)]) + tensor + b"\x3a\x00"
    assert list(Request.FromString(data).inputs[0].shape) == [2, 3]
    check(data)
    check(b"\x0a\x81\x00m\x2a\x00\x3a\x00")  # a length that is longer than it need be
    assert wire.read_infer(b"\x0a\xff\xff\xff\xff\xff\xff") is None


@given(
    texts,
    st.integers(1, 10**6),
    texts,
    st.lists(
        st.tuples(texts, texts, st.lists(st.integers(0, 2**40), max_size=3), st.binary(max_size=300)),
        max_size=3,
    ),
)
def test_writing_gives_the_bytes_of_the_message_class(
    model: str, version: int, call_id: str, outputs: list[tuple[str, str, list[int], bytes]]
) -> None:
    expected = Response(model_name=model, model_version=str(version), id=call_id)
    for name, datatype, shape, values in outputs:
        expected.outputs.add(name=name, datatype=datatype, shape=shape)
        expected.raw_output_contents.append(values)
    written = wire.write_infer(
        model, str(version), call_id, [part[:3] for part in outputs], [part[3] for part in outputs]
    )
    assert Response.FromString(written) == expected


def test_remembering_descriptions_has_an_end() -> None:
    for number in range(3 * wire._KNOWN):
        name = str(number)
        wire.read_infer(Request(inputs=[{"name": name}], raw_input_contents=[b""]).SerializeToString())
    assert len(wire._described) <= wire._KNOWN
