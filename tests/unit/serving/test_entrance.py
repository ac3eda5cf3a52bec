"""Paths to entries."""

import pytest

from fairway.core.errors import FairwayError
from fairway.serving.entrance import Router
from fairway.serving.entrances import ENTRIES
from fairway.serving.errors import MethodNotAllowed, NoSuchPath

ROUTER = Router(ENTRIES)


@pytest.mark.parametrize(
    ("raw", "target"),
    [
        (b"/v2/models/m/infer", ("m", None)),
        (b"/v2/models/m/infer?a=b", ("m", None)),
        (b"/v2/models/a%20b/versions/3/infer", ("a b", "3")),
        (b"/v2/models/m/infer/", ("m", None)),
        (b"//v2/models/m/infer", None),
        (b"/v2/models/m/x/y", None),
        (b"/", None),
        (b"", None),
    ],
)
def test_targets_of_predictions(raw: bytes, target: tuple[str, str | None] | None) -> None:
    try:
        found = ROUTER.find("POST", raw).target
    except FairwayError:
        found = None
    assert (found and (found.model, found.version)) == target


def test_the_same_path_gives_the_same_match_and_memory_is_bounded() -> None:
    router = Router(ENTRIES)
    assert router.find("GET", b"/v2") is router.find("GET", b"/v2")
    for i in range(3000):
        router.find("POST", b"/v2/models/%d/infer" % i)
    assert len(router._known) <= 1024


def test_what_is_not_there_and_what_is_not_allowed() -> None:
    with pytest.raises(NoSuchPath, match="nothing at /nowhere"):
        ROUTER.find("POST", b"/nowhere")
    with pytest.raises(MethodNotAllowed) as caught:
        ROUTER.find("DELETE", b"/v2/models/m")
    assert caught.value.allowed == ("GET", "HEAD")
    assert ROUTER.find("HEAD", b"/metrics").entry.path == "/metrics"
