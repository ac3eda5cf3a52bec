"""Reading a predict body by its content type, and request ids."""

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.core.errors import FairwayError, MalformedInput, ModelNotFound, UnsupportedContent
from fairway.core.request import Request
from fairway.core.route import everything_to
from fairway.inference.live import LiveModel, Table
from fairway.serving.answers import heading_from, read_request, request_id_from
from fairway.serving.entrance import Heading, Target
from fairway.serving.open_inference import V2Codec
from tests.planes import TWO_NUMBERS, live_version

V2 = {
    "inputs": [
        {"name": "a", "shape": [1], "datatype": "FP64", "data": [1]},
        {"name": "b", "shape": [1], "datatype": "FP64", "data": [2]},
    ]
}
FORMS = {
    "inputs": V2["inputs"],
    "dataframe_split": {"columns": ["a", "b"], "data": [[1, 2]]},
    "dataframe_records": [{"a": 1, "b": 2}],
    "instances": [[1, 2]],
}


def read(content: bytes | dict[str, Any], **headers: str) -> Request:
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    sent = {name.replace("_", "-").encode(): value.encode("latin-1") for name, value in headers.items()}
    return read_request(heading(sent), TWO_NUMBERS, raw, sent)[0]


def heading(headers: dict[bytes, bytes]) -> Heading:
    target = Target(V2Codec(), "m")
    return heading_from(target, headers, request_id_from(headers.get(b"x-request-id")), Table(()))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "kind",
    [
        "application/json",
        "application/json; charset=utf-8",
        "application/cloudevents+json",
        "",
        "APPLICATION/JSON",
    ],
)
def test_every_json_form_under_every_json_type(form: str, kind: str) -> None:
    inputs = read({form: FORMS[form]}, content_type=kind).inputs
    assert {name: list(values) for name, values in inputs.items()} == {"a": [1], "b": [2]}


@pytest.mark.parametrize("kind", ["text/csv", "application/csv; header=present"])
def test_csv(kind: str) -> None:
    assert read(b"a,b\n1,2\n", content_type=kind).inputs == {"a": [1.0], "b": [2.0]}


@pytest.mark.parametrize(
    "kind",
    ["text/html", "application/xml", "application/octet-stream", "multipart/form-data", "json", "\xff"],
)
def test_a_type_nobody_reads(kind: str) -> None:
    with pytest.raises(UnsupportedContent, match="Send application/json or text/csv"):
        read(b"x", content_type=kind)


def test_compressed_bodies_are_said_to_be_unsupported() -> None:
    with pytest.raises(UnsupportedContent, match="Compressed"):
        read(b"x", content_encoding="gzip")
    assert read({"instances": [[1, 2]]}, content_encoding="identity").inputs


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ({}, "it has none of them"),
        ({"other": 1}, "none of them"),
        ({"instances": None}, "none of them"),
        ({"instances": [[1, 2]], "dataframe_records": [{}]}, "dataframe_records and instances at once"),
        ({**V2, "instances": [[1, 2]]}, "inputs and instances at once"),
        ({"dataframe_split": {"columns": ["a"]}}, "dataframe_split cannot be read"),
        ({"dataframe_split": []}, "dataframe_split cannot be read"),
        ({"dataframe_records": {}}, "dataframe_records cannot be read"),
        ({"dataframe_records": [1]}, "dataframe_records cannot be read"),
        ({"instances": {"a": 1}}, "instances cannot be read"),
        ({"instances": []}, "no rows"),
        ({"dataframe_records": []}, "no rows"),
        ({**V2, "outputs": [{"name": "score"}]}, "outputs are sum, both"),
    ],
)
def test_a_body_in_no_form_or_in_several(content: dict[str, Any], why: str) -> None:
    with pytest.raises(MalformedInput, match=why):
        read(content)


@pytest.mark.parametrize("form", ["dataframe_records", "instances", "dataframe_split"])
def test_bytes_that_are_no_text(form: str) -> None:
    content = {
        "instances": b'[["\xff", 1]]',
        "dataframe_records": b'[{"\xff": 1}]',
        "dataframe_split": b'{"columns":["\xff"],"data":[]}',
    }
    with pytest.raises(MalformedInput, match="UTF-8"):
        read(b'{"%b": %b}' % (form.encode(), content[form]))


@given(
    st.sampled_from(sorted(FORMS)),
    st.recursive(
        st.none() | st.integers() | st.text(max_size=3),
        lambda i: (
            st.lists(i, max_size=3)
            | st.dictionaries(st.sampled_from(["a", "b", "columns", "data", "name", "shape"]), i, max_size=4)
        ),
        max_leaves=10,
    ),
)
def test_any_json_in_any_form_is_read_or_refused(form: str, value: Any) -> None:
    try:
        read({form: value})
    except FairwayError:
        pass


def test_key_and_wanted_outputs() -> None:
    assert read({**V2, "parameters": {"key": 5}}).key == "5"
    assert read({**V2, "parameters": {"key": 5}}, x_fairway_key="header wins").key == "header wins"
    assert read({"instances": [[1, 2]]}, x_fairway_key="k\xe9").key == "k\xe9"
    assert read(V2).key is None
    assert read({**V2, "outputs": [{"name": "sum"}]}).wanted == ("sum",)


def test_v2_ids_are_echoed() -> None:
    assert read_request(heading({}), TWO_NUMBERS, json.dumps({**V2, "id": "e"}).encode(), {})[1] == "e"


@pytest.mark.parametrize("given_id", ["a", "a" * 128, "0b1c-2.3:4@5/6+7=8_9"])
def test_the_callers_request_id_is_kept(given_id: str) -> None:
    assert request_id_from(given_id.encode()) == given_id
    assert read(V2, x_request_id=given_id).request_id == given_id


@pytest.mark.parametrize(
    "given_id", [None, b"", b"a" * 129, b"a b", b"a\nb", b"\xff", b'"', b"<script>", b"a\n"]
)
def test_one_that_could_do_harm_is_replaced(given_id: bytes | None) -> None:
    made = request_id_from(given_id)
    assert made
    assert given_id is None or made.encode() != given_id


def test_a_deadline_in_milliseconds() -> None:
    before = time.perf_counter()
    deadline = heading({b"x-request-timeout-ms": b"250.5"}).deadline
    assert deadline is not None
    assert before + 0.25 < deadline < time.perf_counter() + 0.26
    assert heading({}).deadline is None


@pytest.mark.parametrize("text", [b"", b"0", b"0.0", b"-1", b"nan", b"1e3", b"9999999999", b"5 ", b"5\n"])
def test_what_is_no_deadline_is_refused(text: bytes) -> None:
    with pytest.raises(MalformedInput, match="milliseconds"):
        heading({b"x-request-timeout-ms": text})


def test_a_path_without_a_model() -> None:
    def named(headers: dict[bytes, bytes], table: Table) -> str:
        return heading_from(Target(V2Codec(), None), headers, "r", table).model

    one = LiveModel(everything_to("one", 1), {1: live_version(1)}, {})
    two = LiveModel(everything_to("two", 1), {1: live_version(1)}, {})
    assert named({}, Table([one])) == "one"
    assert named({}, Table([one, two], "two")) == "two"
    assert named({b"x-fairway-model": b"two"}, Table([one, two])) == "two"
    with pytest.raises(ModelNotFound, match="X-Fairway-Model"):
        named({}, Table([one, two]))
