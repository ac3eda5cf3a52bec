"""What the audit says of streams made of allowed names alone, and of streams that are broken."""

from __future__ import annotations

import io
import pickle
import struct
from typing import Any

import joblib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fairway.core.errors import ArtifactError, CorruptBundle, UnknownFormat, UntrustedArtifact
from fairway.security.pickle_audit import Limits, audit_pickle, require_passed
from fairway.security.pickle_file import load_pickle
from tests.unit.security.payloads import PROTO4, STOP, Raw, call, name, program, push, text


def _array(dtype: Raw) -> Raw:
    return call(name("numpy._core.multiarray", "_reconstruct"), name("numpy", "ndarray"), (0,), b"b")


def _built(value: bytes, state: Any) -> Raw:
    return Raw(value + (state if isinstance(state, Raw) else push(state)) + b"b")


def _tuple(*values: bytes) -> Raw:
    return Raw(b"(" + b"".join(values) + b"t")


def _mapping(**values: bytes) -> Raw:
    return Raw(b"}(" + b"".join(text(key) + value for key, value in values.items()) + b"u")


def _empty(module: str, cls: str) -> Raw:
    return Raw(name(module, cls) + b")\x81")


DTYPE = call(name("numpy", "dtype"), "f8", False, True)
OBJECTS = call(name("numpy", "dtype"), "O8", False, True)
ESTIMATOR = ("sklearn.linear_model._logistic", "LogisticRegression")
ESTIMATOR_STATE = push({"C": 1.0})
POINTERS = _built(OBJECTS, (3, "|", None, None, None, -1, -1, 0))  # objects that claim not to be any

ABUSES: dict[str, bytes] = {
    "an estimator called with arguments": call(name(*ESTIMATOR), "l2"),
    "an estimator made with arguments": Raw(name(*ESTIMATOR) + push(("l2",)) + b"\x81"),
    "an estimator made with keywords": Raw(name(*ESTIMATOR) + b")" + push({"C": 1}) + b"\x92"),
    "attributes set through setattr": _built(_empty(*ESTIMATOR), _tuple(b"N", _mapping(__class__=push(1)))),
    "a state set twice": _built(_built(_empty(*ESTIMATOR), {"C": 1.0}), {"C": 2.0}),
    "a state on a class": _built(name(*ESTIMATOR), {"predict": None}),
    "a state on a list": _built(push([1]), {"x": 1}),
    "a result called": Raw(call(name("builtins", "object")) + b")R"),
    "a constant called": Raw(text("x") + b")R"),
    "arguments that are no tuple": Raw(name("builtins", "list") + b"]R"),
    "a name that is no text": Raw(b"K\x01" + text("x") + b"\x93"),
    "a name with a computed part": Raw(text("os") + call(name("builtins", "str")) + b"\x93"),
    "items put into an estimator": Raw(_empty(*ESTIMATOR) + text("k") + b"Ns"),
    "items put into text": Raw(text("x") + b"Na"),
    "a bytearray of any size": call(name("builtins", "bytearray"), 10**12),
    "bytes of any size": call(name("builtins", "bytes"), 10**12),
    "an array of any size": call(
        name("numpy._core.multiarray", "_reconstruct"), name("numpy", "ndarray"), (10**12,), b"b"
    ),
    "another class as an array": call(
        name("numpy._core.multiarray", "_reconstruct"), name(*ESTIMATOR), (0,), b"b"
    ),
    "a dtype by an odd name": call(name("numpy", "dtype"), "f8,O", False, True),
    "a dtype shared with all": call(name("numpy", "dtype"), "f8", False, False),
    "a dtype of objects that says it has none": POINTERS,
    "pointers read from bytes": call(
        name("numpy._core.numeric", "_frombuffer"), b"\x41" * 8, POINTERS, (1,), "C"
    ),
    "objects read from bytes": call(
        name("numpy._core.numeric", "_frombuffer"), b"\x41" * 8, OBJECTS, (1,), "C"
    ),
    "a scalar of objects": call(name("numpy._core.multiarray", "scalar"), OBJECTS, b"\x41" * 8),
    "a dtype grown in place": _built(
        call(name("numpy", "dtype"), "V1", False, True),
        _tuple(
            push(3),
            push("|"),
            b"N",
            push(("a",)),
            _mapping(a=_tuple(DTYPE, push(0))),
            push(8),
            push(1),
            push(16),
        ),
    ),
    "objects below other fields": _built(
        call(name("numpy", "dtype"), "V8", False, True),
        _tuple(
            push(3),
            push("|"),
            b"N",
            push(("a", "b")),
            _mapping(a=_tuple(OBJECTS, push(0)), b=_tuple(DTYPE, push(0))),
            push(8),
            push(1),
            push(63),
        ),
    ),
    "an array longer than its bytes": _built(
        _array(DTYPE), _tuple(push(1), push((1000,)), DTYPE, push(False), push(b"\x00" * 8))
    ),
    "an array of fewer objects than it says": _built(
        _array(OBJECTS), _tuple(push(1), push((3,)), OBJECTS, push(False), push([1]))
    ),
    "a random state that calls": call(
        name("numpy.random._pickle", "__randomstate_ctor"), "MT19937", name("builtins", "object")
    ),
    "a bit generator of any class": call(
        name("numpy.random._pickle", "__bit_generator_ctor"), name(*ESTIMATOR)
    ),
    "a factory of any kind": call(name("collections", "defaultdict"), name("numpy", "mean")),
    "copyreg with another base": call(
        name("copyreg", "_reconstructor"), name(*ESTIMATOR), name("numpy", "mean"), None
    ),
    "copyreg with a function": call(
        name("copyreg", "_reconstructor"), name("numpy", "mean"), name("builtins", "object"), None
    ),
    "copyreg's newobj with arguments": call(name("copyreg", "__newobj__"), name(*ESTIMATOR), "l2"),
    "a Cython loss of another class": call(
        name("sklearn._loss._loss", "__pyx_unpickle_CyHuberLoss"), name(*ESTIMATOR), 1, None
    ),
    "a neighbour tree of another class": call(name("sklearn.neighbors._kd_tree", "newObj"), name(*ESTIMATOR)),
    "a function of the list called": call(name("numpy", "mean"), [1]),
    "an array of joblib read in an odd way": _built(
        _empty("joblib.numpy_pickle", "NumpyArrayWrapper"), {"dtype": "f8", "shape": (1,), "order": "C"}
    ),
    "buffers outside": Raw(b"\x97"),
    "a key that takes for ever to hash": Raw(b"}" + b")" + b"2\x86" * 40 + b"Ns"),
    "a member that takes for ever to hash": Raw(b"\x8f(" + b")" + b"2\x86" * 40 + b"\x90"),
    "too many pickles": b"",
}
del ABUSES["too many pickles"]


@pytest.mark.parametrize("abuse", list(ABUSES))
def test_allowed_names_used_otherwise_than_models_do(abuse: str) -> None:
    data = PROTO4 + ABUSES[abuse] + STOP
    audit = audit_pickle(data)
    assert audit.refused == ()
    assert audit.acts, "went unnoticed"
    with pytest.raises(UntrustedArtifact, match="does what no model file does"):
        load_pickle(data)


@pytest.mark.parametrize(
    ("module", "attribute"),
    [
        ("sklearn.base", "clone"),
        ("sklearn.base", "os"),
        ("sklearn.utils", "Bunch"),  # allowed under the name of its own module only
        ("sklearn.linear_model", "LogisticRegression"),
        ("sklearn.linear_model._logistic", "LogisticRegression.fit"),
        ("sklearn.linear_model._logistic", "np"),
        ("sklearn.linear_model._logistic", "BaseEstimator"),
        ("sklearn.utils._testing", "MinimalClassifier"),
        ("sklearn.datasets._base", "load_iris"),
        ("sklearn.tests.test_base", "MyEstimator"),
        ("sklearn", "os"),
        ("sklearn.not_there", "Estimator"),
        ("sklearn..base", "BaseEstimator"),
        ("sklearn.base\n", "BaseEstimator"),
        ("sklearnx.base", "BaseEstimator"),
        ("numpy", "load"),
        ("numpy", "ndarray.dump"),
        ("numpy", "vectorize"),
        ("numpy", "fromfile"),
        ("numpy.core.multiarray", "fromfile"),
        ("pandas", "read_csv"),
        ("builtins", "type"),
        ("builtins", "super"),
        ("builtins", "getattr"),
        ("__builtin__", "apply"),
        ("copyreg", "add_extension"),
        ("collections", "namedtuple"),
        ("xgboost.core", "DMatrix"),
        ("lightgbm.basic", "Dataset"),
        ("catboost.core", "Pool"),
        ("joblib.memory", "Memory"),
        ("", ""),
        ("os", ""),
    ],
)
def test_names_beside_the_list(module: str, attribute: str) -> None:
    for data in (program(name(module, attribute)), f"c{module}\n{attribute}\n.".encode()):
        if "\n" in module and data.startswith(b"c"):
            continue
        audit = audit_pickle(data)
        assert len(audit.refused) == 1
        with pytest.raises(UntrustedArtifact):
            require_passed(audit, "x")


def test_the_report() -> None:
    from sklearn.tree import DecisionTreeClassifier

    model = DecisionTreeClassifier().fit([[0.0], [1.0]], [0, 1])
    audit = audit_pickle(pickle.dumps(model))
    assert audit.passed
    assert "sklearn.tree._tree.Tree" in audit.names
    assert len(audit.versions) == 1
    assert audit.pickles == 1
    out = io.BytesIO()
    joblib.dump({"a": np.array(["x", None], object), "b": model}, out)
    assert audit_pickle(out.getvalue()).pickles == 2


def test_limits() -> None:
    data = pickle.dumps(list(range(1000)))
    with pytest.raises(UntrustedArtifact, match="more than 50 opcodes"):
        require_passed(audit_pickle(data, limits=Limits(opcodes=50)), "x")
    out = io.BytesIO()
    joblib.dump([np.array([i], object) for i in range(5)], out)
    with pytest.raises(UntrustedArtifact, match="more than 3 pickles"):
        require_passed(audit_pickle(out.getvalue(), limits=Limits(nested_pickles=3)), "x")


def test_a_size_is_not_believed() -> None:
    """A few bytes that claim to be terabytes reserve nothing."""
    huge = struct.pack("<Q", 2**40)
    for opcode in (b"\x8e", b"\x8d", b"\x96", b"\x95"):
        with pytest.raises(CorruptBundle):
            audit_pickle(PROTO4 + opcode + huge + b"xx.")
    with pytest.raises(CorruptBundle):
        audit_pickle(PROTO4 + b"\x8b" + struct.pack("<i", 2**31 - 1) + b"x.")


def test_joblib_array_cut_short() -> None:
    out = io.BytesIO()
    joblib.dump(np.zeros(1000), out)
    with pytest.raises(CorruptBundle):
        audit_pickle(out.getvalue()[:-2000])


def test_old_joblib_is_named() -> None:
    for wrapper in ("NDArrayWrapper", "ZNDArrayWrapper"):
        with pytest.raises(UnknownFormat, match=r"joblib before 0\.10"):
            audit_pickle(program(name("joblib.numpy_pickle", wrapper)))


@pytest.mark.parametrize("data", [b"hello, world", b"\x00\x01\x02", b"{}", b"a,b\n1,2\n", b"\xff" * 20])
def test_not_a_pickle(data: bytes) -> None:
    with pytest.raises(UnknownFormat):
        audit_pickle(data)


_HONEST = pickle.dumps({"a": np.arange(5), "b": [1, ("x", 2.5)], "c": np.array(["u", None], object)}, 4)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_damage_never_escapes(data: st.DataObject) -> None:
    """Whatever bytes are flipped, the answer is a report or one of Fairway's errors, and loading agrees."""
    damaged = bytearray(_HONEST)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        load_pickle(bytes(damaged))
    except ArtifactError:
        pass


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_noise_never_escapes(data: bytes) -> None:
    try:
        audit_pickle(PROTO4 + data)
    except ArtifactError:
        pass


@settings(max_examples=100, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(st.text(), inner)
            | st.tuples(inner, inner)
            | st.frozensets(st.integers())
        ),
        max_leaves=20,
    ),
    st.integers(0, 5),
)
def test_plain_data_comes_back(value: Any, protocol: int) -> None:
    assert load_pickle(pickle.dumps(value, protocol)) == value
