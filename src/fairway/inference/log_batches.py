"""What was gathered as batches for the log: private fields never as they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain

import msgspec
import numpy as np

from fairway.core.settings import LogSettings
from fairway.inference.gathered import Gathered
from fairway.inference.predictions import Logged
from fairway.security.privacy import KEY_FIELD, Vault, private_fields, private_text
from fairway.stores.arrow_columns import Nested, Texts, same_text, texts_of
from fairway.stores.log_segments import FIELDS, MATRIX, LogBatch

_LIVE = "live"
Broken = Mapping[tuple[str, str], int]
"""Rows by field and rule."""


class LogBatches:
    """Makes batches, and remembers broken rules until there is a row to tell them in."""

    def __init__(self, settings: LogSettings, open_vault: Callable[[], Vault | None], writer: str) -> None:
        self._settings = settings
        self._open_vault = open_vault
        self._vault: Vault | None = None
        self._opened = False
        self._writer = writer
        self._broken: dict[tuple[str, int], dict[tuple[str, str], int]] = {}

    def note(self, model: str, version: int, broken: Broken) -> None:
        noted = self._broken.setdefault((model, version), {})
        for place, rows in broken.items():
            noted[place] = noted.get(place, 0) + rows

    def batch(self, gathered: Gathered) -> LogBatch:
        """All of it, in the memory where it is gathered: valid until that changes."""
        about, matrix, calls, requests = gathered.about, gathered.matrix, gathered.calls, len(gathered.asked)
        if about.private:
            matrix = None
        private_keys = self._settings.key_privacy in ("hash", "token")
        vault = self._key() if about.private or private_keys else None
        inputs = {} if matrix is not None else private_fields(gathered.inputs, about.private, vault)
        ids, keys, wanted, callers = zip(*gathered.asked, strict=True)
        sizes = [len(call.counts) for call in calls]
        counts = [*chain.from_iterable([call.counts for call in calls])]
        texts = {
            "request_id": texts_of(ids),
            "key": self._keys(keys, vault),
            "arm": _arms(wanted, f"v{about.version}"),
            "source": _of_calls([call.sources or _LIVE for call in calls], sizes),
            "protocol": _of_calls([call.protocol for call in calls], sizes),
            "caller": _texts(callers),
            "violations": self._violations(about, requests),
        }
        of_rows = {}
        if any(call.row_keys for call in calls):
            own = [*chain.from_iterable([call.row_keys or [None] * len(call.counts) for call in calls])]
            if own.count(None) < requests:
                of_rows["key"] = self._keys(_each_row(own, keys, counts), vault)
                del texts["key"]
        return LogBatch(
            model=about.model,
            stream=f"v{about.version}",
            metadata=self._metadata(about, None if matrix is None else gathered.names),
            texts=texts,
            columns={
                "time": np.repeat(
                    np.array([int(call.time * 1e6) for call in calls]).view("datetime64[us]"), sizes
                ),
                "version": np.full(requests, about.version, dtype=np.int32),
                "seconds": np.fromiter(
                    chain.from_iterable([call.seconds for call in calls]), np.float32, requests
                ),
            },
            nested=Nested(
                np.array(counts, np.int32),
                of_rows,
                {
                    **({} if matrix is None else {MATRIX: matrix}),
                    **{f"input.{name}": values for name, values in inputs.items()},
                    **{f"output.{name}": values for name, values in gathered.outputs.items()},
                },
            ),
        )

    def _metadata(self, about: Logged, fields: Sequence[str] | None) -> dict[str, str]:
        """What is the same in every row; `fields` are those of a matrix."""
        metadata = {
            "fairway.model": about.model,
            "fairway.digest": about.digest,
            "fairway.writer": self._writer,
            "fairway.sample": repr(about.sample),
        }
        if fields is not None:
            metadata[FIELDS] = msgspec.json.encode(fields).decode()
        return metadata

    def _keys(self, keys: Sequence[str | None], vault: Vault | None) -> Texts:
        how = self._settings.key_privacy
        if keys.count(None) == len(keys):
            return same_text(None, len(keys))
        return _texts([None if key is None else private_text(vault, KEY_FIELD, key, how) for key in keys])

    def _key(self) -> Vault | None:
        """The key of private values, None when there is none: they are then not written at all."""
        if not self._opened:
            self._opened = True
            self._vault = self._open_vault()
        return self._vault

    def _violations(self, about: Logged, requests: int) -> Texts:
        """Broken rules stand in the first request that is written after they were broken."""
        noted = self._broken.pop((about.model, about.version), None)
        if not noted:
            return same_text(None, requests)
        told = [{"field": field, "rule": rule, "rows": count} for (field, rule), count in noted.items()]
        return texts_of([msgspec.json.encode(told).decode(), *[None] * (requests - 1)])


def _each_row(
    row_keys: Sequence[Sequence[bytes] | None], keys: Sequence[str | None], counts: Sequence[int]
) -> list[str | None]:
    """The key of each row, where precomputed answers are looked for by them; else its request's."""
    values: list[str | None] = []
    for own, key, count in zip(row_keys, keys, counts, strict=True):
        values += [key] * count if own is None else [one.decode("utf-8", "replace") for one in own]
    return values


def _arms(wanted: Sequence[str | None], arm: str) -> Texts:
    """Null where a request asked for a version by name: no arm was chosen for it."""
    if wanted.count(None) == len(wanted):
        return same_text(arm, len(wanted))
    return texts_of([arm if one is None else None for one in wanted])


def _of_calls(values: Sequence[str | Sequence[str]], sizes: Sequence[int]) -> Texts:
    """A value a request: of each call one for all, or a list."""
    if values.count(values[0]) == len(values) and isinstance(values[0], str):
        return same_text(values[0], sum(sizes))
    each = zip(values, sizes, strict=True)
    return texts_of(
        [*chain.from_iterable([[one] * size if isinstance(one, str) else one for one, size in each])]
    )


def _texts(values: Sequence[str | None]) -> Texts:
    """A value a request; mostly all are the same."""
    first = values[0]
    return same_text(first, len(values)) if values.count(first) == len(values) else texts_of(values)
