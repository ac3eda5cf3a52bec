"""What was gathered as batches for the log: private fields never as they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

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
        about, matrix, requests = gathered.about, gathered.matrix, len(gathered.counts)
        if about.private:
            matrix = None
        private_keys = self._settings.key_privacy in ("hash", "token")
        vault = self._key() if about.private or private_keys else None
        inputs = {} if matrix is not None else private_fields(gathered.inputs, about.private, vault)
        calls, keys = np.array(gathered.calls), gathered.keys.all()
        arm = f"v{about.version}"  # of those for which one was chosen
        texts = {
            "request_id": gathered.request_ids.texts(),
            "key": self._keys(keys, vault),
            "arm": _texts([arm if one is None else None for one in gathered.wanted.all()]),
            "source": _texts(gathered.sources) if gathered.sources else same_text(_LIVE, requests),
            "protocol": _texts(np.repeat(np.array(gathered.protocols.all(), object), calls).tolist()),
            "caller": _texts(gathered.callers.all()),
            "violations": self._violations(about, requests),
        }
        of_rows = {}
        if gathered.row_keys.count(None) < len(gathered.row_keys):
            of_rows["key"] = self._keys(_each_row(gathered, keys), vault)
            del texts["key"]
        return LogBatch(
            model=about.model,
            stream=f"v{about.version}",
            metadata=self._metadata(about, None if matrix is None else gathered.names),
            texts=texts,
            columns={
                "time": np.repeat((np.array(gathered.times) * 1e6).astype(np.int64), calls).view(
                    "datetime64[us]"
                ),
                "version": np.full(requests, about.version, dtype=np.int32),
                "seconds": np.array(gathered.seconds),
            },
            nested=Nested(
                np.array(gathered.counts),
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


def _each_row(gathered: Gathered, keys: Sequence[str | None]) -> list[str | None]:
    """The key of each row, where precomputed answers are looked for by them; else its request's."""
    values: list[str | None] = []
    for own, key, count in zip(gathered.row_keys, keys, gathered.counts, strict=True):
        values += [key] * count if own is None else [one.decode("utf-8", "replace") for one in own]
    return values


def _texts(values: Sequence[str | None]) -> Texts:
    """A value a request; mostly all are the same."""
    first = values[0]
    return same_text(first, len(values)) if values.count(first) == len(values) else texts_of(values)
