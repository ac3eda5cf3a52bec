"""What is loaded and takes traffic: versions, and the table that finds one for a request."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from pathlib import Path
from typing import Protocol

from fairway.core.bundle import EngineSpec
from fairway.core.columns import Columns, Outputs
from fairway.core.conform import to_columns
from fairway.core.contract import Contract
from fairway.core.errors import (
    AliasNotFound,
    DeadlineExceeded,
    FairwayError,
    ModelFailed,
    ModelNotFound,
    Overloaded,
    VersionNotFound,
)
from fairway.core.request import Inputs
from fairway.core.route import Route
from fairway.core.settings import ModelSettings, Settings
from fairway.inference.cost import CostCurve
from fairway.inference.matrix_limits import Broken
from fairway.inference.merging import Floor, find_floor, repeated
from fairway.inference.precomputed import check_default
from fairway.inference.predictions import Logged
from fairway.inference.route import choose
from fairway.inference.stats import VersionStats
from fairway.inference.validate import Split, Validator
from fairway.packaging.bundle import Bundle, read_bundle
from fairway.packaging.environment import check_environment
from fairway.packaging.golden import check_golden
from fairway.runtimes.base import Engine, Graph, load
from fairway.stores.counters import Counters

_NOT_TRIED = Floor(None, "batching is off")
_PLAIN = ModelSettings()
_SHOWN = 100
"""Characters of a name that a caller asked for."""
_SLOW_SECONDS = 5e-5
"""From here on, a call is worth timing by the processor's time."""


class LiveVersion:
    """A loaded, checked version of a model; or, with `Absent` for its engine, what is known of one not loaded.

    It is in use as long as somebody holds it: when the last request that does has gone, its engine is unloaded."""

    def __init__(
        self,
        model: str,
        version: int,
        bundle: Bundle,
        engine: Engine,
        stats: VersionStats,
        settings: Settings,
        floor: Floor = _NOT_TRIED,
    ) -> None:
        own = settings.models.get(model, _PLAIN)
        batching = settings.batching
        self.model = model
        self.version = version
        self.digest = bundle.digest
        self.fields = frozenset(field.name for field in bundle.contract)
        self.contract: Contract = bundle.contract
        self.logged = Logged(
            model=model,
            version=version,
            digest=bundle.digest,
            private={field.name: field.private for field in bundle.contract if field.private is not None},
            sample=settings.log.sample if own.log_sample is None else own.log_sample,
        )
        self.key_name = own.hybrid_key
        """What requests call the key of a precomputed answer; empty for a model without such answers."""
        self.bundle = bundle
        self.stats = stats
        self.floor = floor
        mode = own.batching or batching.mode
        self.merges = mode == "always" or (mode == "auto" and floor.rows is not None)
        """Whether its calls may be merged."""
        # An engine that waits for another process may wait long, however quick it was before: never inline.
        inline = settings.serving.inline_seconds
        if getattr(engine, "may_block", False) and inline < math.inf:
            inline = -1.0
        self.cost = CostCurve(inline_seconds=inline, most_rows=own.batch_rows or batching.rows)
        if inline < 0:
            self.cost.inline_rows = 0
        for rows, seconds in floor.seconds:
            self.cost.learn(rows, seconds)
        self._floor = floor.rows or 1
        slow = self.cost.expect(1) > _SLOW_SECONDS
        self._clock = call_clock(bundle.spec, settings) if slow else time.perf_counter
        self._engine = engine
        self.used = time.perf_counter()
        """When it last predicted."""
        self.bytes = 0
        """Memory it was seen to take when it was loaded."""
        limits = settings.limits
        self._validator = Validator(bundle.contract, max_rows=limits.rows, max_problems=limits.problems)

    def merge_rows(self) -> int:
        """Most rows that it pays to run as one call now; 1: none are merged."""
        return self.cost.pays_rows if self.merges else 1

    def validate(self, inputs: Inputs) -> Columns:
        """Typed columns, or ContractViolation with every bad field."""
        return self._validator.check(inputs, self.stats.broken)

    def split(self, inputs: Inputs, broken: Broken | None = None) -> Split:
        """As `validate`, with the rows that do not fit apart from the others; see `Validator.split`. `broken` is told
        of broken rules instead of the version's counters."""
        return self._validator.split(inputs, broken or self.stats.broken)

    def validate_together(self, requests: Sequence[Inputs]) -> tuple[Columns, list[int]] | None:
        """The rows of all requests and how many each has, when nothing is wrong with any; None to look at each."""
        return self._validator.check_together(requests, self.stats.broken)

    def run(self, columns: Columns) -> Outputs:
        """Outputs by name, rows first. Raises ModelFailed; teaches the cost curve.

        Fewer rows than the version's floor are filled up to it, so that they get what they would among others."""
        rows = columns.rows
        self.used = time.perf_counter()
        clock = self._clock
        began = clock()
        try:
            if rows < self._floor:
                outputs = self._engine.predict(repeated(columns, self._floor))
                outputs = {name: values[:rows] for name, values in outputs.items()}
            else:
                outputs = self._engine.predict(columns)
        except FairwayError:
            raise
        except Exception as error:
            raise ModelFailed(f"{self.model}:{self.version} failed on {rows} rows: {error}") from error
        self.cost.learn(rows, clock() - began)
        return outputs

    @property
    def calls_at_once(self) -> int:
        """Most calls that the engine can make at the same time."""
        return int(getattr(self._engine, "calls_at_once", 2**31))

    @property
    def engine(self) -> Engine:
        """For who unloads it: nobody else may hold it, or it stays in memory."""
        return self._engine


class Absent:
    """The engine of a version that is not loaded."""

    def predict(self, columns: Columns) -> Outputs:
        raise Overloaded("this version is not loaded now.", hint="Try again.")

    def unload(self) -> None:
        return None


class Loads(Protocol):
    """Who loads versions that a request asks for."""

    def load_soon(self, model: str, versions: Collection[int]) -> Future[LiveModel]:
        """Has them loaded, once however many ask. The result is the model with them; an error is what
        `load_version` raises, ModelNotFound, VersionNotFound or OutOfMemory."""

    @property
    def patience_seconds(self) -> float:
        """How long a request without a deadline waits for that."""


class LiveModel:
    """A model's route and its versions, as they are until the table has another in its place."""

    def __init__(
        self,
        route: Route,
        versions: Mapping[int, LiveVersion],
        aliases: Mapping[str, int],
        unloaded: Collection[int] = (),
        loads: Loads | None = None,
        known: LiveVersion | None = None,
    ) -> None:
        """`unloaded` are versions that `loads` loads when somebody asks for them. `known` describes the model while
        the version with the most traffic is one of them."""
        missing = [number for number in route.versions if number not in versions and number not in unloaded]
        primary = versions.get(route.main, known)
        if missing or primary is None:
            raise VersionNotFound(
                f"the route of {route.model} names versions that are not loaded: {missing or [route.main]}"
            )
        self.route = route
        self.versions = dict(versions)
        self.aliases = dict(aliases)
        self.primary = primary
        """The version with the largest share of traffic: what metadata describes."""
        self._unloaded = frozenset(unloaded) - versions.keys()
        self._loads = loads
        self._cold = any(number in self._unloaded for number in route.versions)
        self._only = versions.get(route.arms[0].version) if len(route.arms) == 1 else None

    def has(self, wanted: str) -> bool:
        """Whether `pick(wanted, ...)` finds a version, at once or once it is loaded."""
        number = _number(wanted)
        return wanted in self.aliases or number in self.versions or number in self._unloaded

    @property
    def numbers(self) -> list[int]:
        """Every version that can be asked for, ascending."""
        return sorted({*self.versions, *self._unloaded})

    def needs_loading(self, wanted: str | None) -> bool:
        """Whether versions have to be loaded first, by `load` or `load_soon`, which takes a while."""
        if wanted is None:
            return self._cold
        return bool(self._unloaded) and self._meant(wanted) in self._unloaded

    def load_soon(self, wanted: str | None) -> Future[LiveModel]:
        """The model with what `needs_loading` named, once it is loaded; see `Loads`. For who must not block."""
        assert self._loads is not None, "a model without Loads has nothing unloaded"
        meant = self._meant(wanted) if wanted is not None else None
        asked = self.route.versions if meant is None else (meant,)
        return self._loads.load_soon(
            self.route.model, [number for number in asked if number in self._unloaded]
        )

    def load(self, wanted: str | None, deadline: float | None = None) -> LiveModel:
        """As `load_soon`, for who can wait. DeadlineExceeded when it takes longer than `deadline`
        (`time.perf_counter` seconds), Overloaded when it takes longer than anybody should wait."""
        assert self._loads is not None, "a model without Loads has nothing unloaded"
        patience = self._loads.patience_seconds
        wait = patience if deadline is None else min(patience, deadline - time.perf_counter())
        loading = self.load_soon(wanted)
        try:
            return loading.result(max(0.0, wait))
        except TimeoutError:
            if loading.done():
                raise
            name = self.route.model
            if deadline is not None and wait < patience:
                raise DeadlineExceeded(f"the deadline passed while {name} was being loaded.") from None
            raise Overloaded(
                f"{name} is still being loaded after {patience:g} s (serving.load_seconds).",
                hint="Try again in a minute.",
            ) from None
        except CancelledError:
            raise Overloaded(f"the server stops; {self.route.model} is not loaded any more.") from None
        finally:
            del loading  # it holds its error, which holds this frame, which holds the model

    def _meant(self, wanted: str) -> int | None:
        """The version number that a number or an alias stands for, as `pick` reads it."""
        number = _number(wanted)
        return self.aliases.get(wanted) if number is None else number

    def pick(self, wanted: str | None, key: str) -> LiveVersion:
        """The version asked for by number or alias, or the arm that `key` falls into."""
        if wanted is None:
            return self._only or self.versions[choose(self.route, key)]
        number = self._meant(wanted)
        if number is None:
            raise AliasNotFound(
                f"{self.route.model} has no alias {wanted[:_SHOWN]!r}; it has {', '.join(sorted(self.aliases)) or 'none'}."
            )
        if number not in self.versions:
            raise VersionNotFound(
                f"{self.route.model} has no version {number} here; loaded: {sorted(self.versions)}."
            )
        return self.versions[number]


def _number(wanted: str) -> int | None:
    """The version number that `wanted` is, or None: an alias, or more digits than versions ever have."""
    return int(wanted) if len(wanted) < 10 and wanted.isdecimal() else None


class Table:
    """Every model being served."""

    def __init__(
        self, models: Iterable[LiveModel], default: str = "", absent: Mapping[str, str] | None = None
    ) -> None:
        """`default` answers on paths that name no model. `absent` says why models that are known are not served."""
        self._models = {model.route.model: model for model in models}
        self._default = default
        self._absent = dict(absent or {})

    def __iter__(self) -> Iterator[LiveModel]:
        return iter(self._models.values())

    def find(self, name: str) -> LiveModel | None:
        return self._models.get(name)

    def default(self) -> str:
        """The model of a path that names none: the one configured, or the only one. Raises ModelNotFound."""
        if self._default:
            return self._default
        if len(self._models) == 1:
            return next(iter(self._models))
        names = ", ".join(sorted(self._models)) or "no model"
        raise ModelNotFound(
            f"the path names no model, and there is {names}.",
            hint="Name one in the header X-Fairway-Model, or set serving.default_model.",
        )

    def __getitem__(self, name: str) -> LiveModel:
        try:
            return self._models[name]
        except KeyError:
            if name in self._absent:
                raise ModelNotFound(f"model {name!r} is not being served: {self._absent[name]}.") from None
            names = ", ".join(sorted(self._models)) or "no model"
            model, _, chosen = name.replace(":", "@").partition("@")
            raise ModelNotFound(
                f"no model {name[:_SHOWN]!r} is being served; there is {names}.",
                hint=f"Ask for models/{model}/versions/{chosen[:_SHOWN]}." if model in self._models else None,
            ) from None


def load_version(
    model: str, version: int, directory: Path, counters: Counters, settings: Settings
) -> LiveVersion:
    """Verifies, loads and warms a bundle. Nothing is served whose files, environment or golden rows differ.

    Raises NotFound, CorruptBundle, NewerFormat, EnvironmentMismatch, EnvironmentFailed, GoldenMismatch, MissingExtra, or
    SettingsError for a `hybrid_default` that does not fit.
    """
    bundle = read_bundle(directory)
    check_default(settings, model, bundle.contract)
    check_environment(bundle.environment)
    engine = load(
        directory,
        bundle.spec,
        bundle.contract,
        threads=settings.serving.engine_threads,
        isolation=settings.isolation_at_home(),
        name=f"{model}:{version}",
    )
    try:
        check_golden(engine, bundle.contract, bundle.golden)  # the first calls also warm the engine up
        own = settings.models.get(model, _PLAIN)
        floor = _NOT_TRIED
        if (own.batching or settings.batching.mode) != "off":
            floor = find_floor(
                engine.predict,
                to_columns(bundle.contract, bundle.golden.inputs),
                clock=call_clock(bundle.spec, settings),
            )
    except BaseException:
        engine.unload()  # it may have processes of its own
        raise
    stats = VersionStats(counters, model, version, bundle.digest)
    if isinstance(engine, Graph):
        engine.timings = stats.node
    return LiveVersion(model, version, bundle, engine, stats, settings, floor)


def call_clock(spec: EngineSpec, settings: Settings) -> Callable[[], float]:
    """What engine calls are timed with. Time of the processor is not disturbed by what else the machine does, but it
    counts only the thread that calls, and reading it costs 2 us."""
    alone = spec.kind == "onnx" and spec.prepare is None and settings.serving.engine_threads == 1
    return time.thread_time if alone else time.perf_counter


def describe_version(
    model: str, version: int, directory: Path, counters: Counters, settings: Settings
) -> LiveVersion:
    """What is known of a version without loading it: its contract and what else its bundle says. Raises NotFound,
    CorruptBundle or NewerFormat."""
    bundle = read_bundle(directory, check_files=False)
    stats = VersionStats(counters, model, version, bundle.digest)
    return LiveVersion(model, version, bundle, Absent(), stats, settings)
