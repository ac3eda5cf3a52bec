"""Of requests that were answered together, those in the sample keep what is theirs."""

import numpy as np

from fairway.core.columns import Columns
from fairway.core.request import Request
from fairway.inference.predictions import Logged, Predictions, in_sample, sampled


def answered(share: float, names: list[str]) -> Predictions:
    counts = [1 + i % 3 for i in range(len(names))]
    rows = np.repeat(np.arange(len(names)), counts)
    return Predictions(
        about=Logged(model="m", version=1, digest="d", sample=share),
        requests=[Request(model="m", inputs={}, request_id=name) for name in names],
        counts=counts,
        time=1.0,
        seconds=[i / 100 for i in range(len(names))],
        columns=Columns(("a",), len(rows), packed=rows.astype(np.float64)[:, None]),
        outputs={"y": rows},
        sources=[f"from {name}" for name in names],
    )


def test_requests_of_a_sample_keep_their_rows() -> None:
    names = [f"r{i}" for i in range(50)]
    chosen = [i for i, name in enumerate(names) if in_sample(name, 0.3)]
    assert 0 < len(chosen) < 50
    found = sampled(answered(0.3, names))
    assert found is not None
    assert found.request_ids == [names[i] for i in chosen]
    assert found.counts == [1 + i % 3 for i in chosen]
    assert found.seconds == [i / 100 for i in chosen]
    assert found.sources == [f"from r{i}" for i in chosen]
    rows = [i for i in chosen for _ in range(1 + i % 3)]
    assert found.outputs["y"].tolist() == found.columns["a"].tolist() == rows
    assert found.columns.rows == len(rows)


def test_all_and_none() -> None:
    all_of_them = answered(1.0, ["a", "b"])
    assert sampled(all_of_them) is all_of_them
    assert sampled(answered(0.0, ["a", "b"])) is None
