"""What is loaded and takes traffic: versions, and the table that finds one for a request."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from fairway.core.columns import Columns, Outputs
from fairway.core.contract import Contract
from fairway.core.errors import AliasNotFound, FairwayError, ModelFailed, ModelNotFound, VersionNotFound
from fairway.core.request import Inputs
from fairway.core.route import Route
from fairway.core.settings import LimitSettings
from fairway.inference.route import choose
from fairway.inference.stats import VersionStats
from fairway.inference.validate import Validator
from fairway.packaging.bundle import Bundle, read_bundle
from fairway.packaging.environment import check_environment
from fairway.packaging.golden import check_golden
from fairway.runtimes.base import Engine, load
from fairway.stores.counters import Counters


class LiveVersion:
    """A loaded, checked version of a model."""

    def __init__(
        self,
        model: str,
        version: int,
        bundle: Bundle,
        engine: Engine,
        stats: VersionStats,
        limits: LimitSettings,
    ) -> None:
        self.model = model
        self.version = version
        self.digest = bundle.digest
        self.fields = frozenset(field.name for field in bundle.contract)
        self.contract: Contract = bundle.contract
        self.bundle = bundle
        self.stats = stats
        self.cost = CostCurve()
        self._engine = engine
        self._validator = Validator(bundle.contract, max_rows=limits.rows, max_problems=limits.problems)

    def validate(self, inputs: Inputs) -> Columns:
        """Typed columns, or ContractViolation with every bad field."""
        return self._validator.check(inputs, self.stats.broken)

    def run(self, columns: Columns) -> Outputs:
        """Outputs by name, rows first. Raises ModelFailed; teaches the cost curve."""
        began = time.perf_counter()
        try:
            outputs = self._engine.predict(columns)
        except FairwayError:
            raise
        except Exception as error:
            raise ModelFailed(
                f"{self.model}:{self.version} failed on {columns.rows} rows: {error}"
            ) from error
        self.cost.learn(columns.rows, time.perf_counter() - began)
        return outputs

    def unload(self) -> None:
        self._engine.unload()


class CostCurve:
    """Seconds per call by rows, learned while serving: a low moving average for each power of two of rows.

    It falls fast and rises slowly, because what makes a call take longer than usual is nearly always the machine
    and not the model; believing it would send quick calls to threads, where they take longer still.
    """

    _DOWN = 0.2
    _UP = 0.01

    def __init__(self) -> None:
        self._seconds: dict[int, float] = {}

    def learn(self, rows: int, seconds: float) -> None:
        size = rows.bit_length()
        known = self._seconds.get(size)
        if known is None:
            self._seconds[size] = seconds
        else:
            self._seconds[size] = known + (self._UP if seconds > known else self._DOWN) * (seconds - known)

    def expect(self, rows: int) -> float:
        """Expected seconds; from the nearest smaller size seen, scaled up, where this size is new."""
        size = rows.bit_length()
        known = self._seconds.get(size)
        if known is not None:
            return known
        smaller = [s for s in self._seconds if s < size]
        if smaller:
            nearest = max(smaller)
            return float(self._seconds[nearest] * 2 ** (size - nearest))
        return min(self._seconds.values(), default=0.0)


class LiveModel:
    """A model's route and its loaded versions."""

    def __init__(
        self,
        route: Route,
        versions: Mapping[int, LiveVersion],
        aliases: Mapping[str, int],
        unloaded: Mapping[int, Callable[[], LiveVersion]] | None = None,
    ) -> None:
        """`unloaded` are versions that nothing routes to: asked for by number, they are loaded then."""
        missing = [version for version in route.versions if version not in versions]
        if missing:
            raise VersionNotFound(f"the route of {route.model} names versions that are not loaded: {missing}")
        self.route = route
        self.versions = dict(versions)
        self.aliases = dict(aliases)
        self._unloaded = dict(unloaded or {})
        self._loading = threading.Lock()
        self.primary = self.versions[max(route.arms, key=lambda arm: arm.weight).version]
        """The version with the largest share of traffic: what metadata describes."""
        self._only = versions[route.arms[0].version] if len(route.arms) == 1 else None

    def has(self, wanted: str) -> bool:
        """Whether `pick(wanted, ...)` finds a version."""
        number = _number(wanted)
        return wanted in self.aliases or number in self.versions or number in self._unloaded

    @property
    def numbers(self) -> list[int]:
        """Every version that can be asked for, ascending."""
        return sorted({*self.versions, *self._unloaded})

    def needs_loading(self, wanted: str | None) -> bool:
        """Whether this version has to be loaded first; do that with `load`, which takes a while."""
        return wanted is not None and _number(wanted) in self._unloaded

    def load(self, wanted: str) -> None:
        """Loads a version that `needs_loading` named; the errors are those of `load_version`."""
        with self._loading:
            number = int(wanted)
            if number in self._unloaded:
                self.versions[number] = self._unloaded[number]()
                del self._unloaded[number]

    def pick(self, wanted: str | None, key: str) -> LiveVersion:
        """The version asked for by number or alias, or the arm that `key` falls into."""
        if wanted is None:
            return self._only or self.versions[choose(self.route, key)]
        number = _number(wanted)
        if number is None:
            number = self.aliases.get(wanted)
        if number is None:
            raise AliasNotFound(
                f"{self.route.model} has no alias {wanted!r}; it has {', '.join(sorted(self.aliases)) or 'none'}."
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

    def __init__(self, models: Iterable[LiveModel], default: str = "") -> None:
        """`default` answers on paths that name no model."""
        self._models = {model.route.model: model for model in models}
        self._default = default

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
            names = ", ".join(sorted(self._models)) or "no model"
            raise ModelNotFound(f"no model {name!r} is being served; there is {names}.") from None


def load_version(
    model: str, version: int, directory: Path, counters: Counters, limits: LimitSettings, *, threads: int = 1
) -> LiveVersion:
    """Verifies, loads and warms a bundle. Nothing is served whose files, environment or golden rows differ.

    Raises CorruptBundle, NewerFormat, EnvironmentMismatch, GoldenMismatch or MissingExtra.
    """
    bundle = read_bundle(directory)
    check_environment(bundle.environment)
    engine = load(directory, bundle.spec, bundle.contract, threads=threads)
    check_golden(engine, bundle.contract, bundle.golden)  # the first calls also warm the engine up
    stats = VersionStats(counters, model, version, bundle.digest)
    return LiveVersion(model, version, bundle, engine, stats, limits)
