"""The versions that one process has in memory: loads them, puts new ones in the place of old ones, lets them go.

Everything ends in one assignment: a new `Table`. Requests that came before it keep the version they were given, and
with the last of them it is unloaded. One version is loaded at a time, so that loading costs those that serve little.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path

from fairway.core.errors import (
    CorruptBundle,
    FairwayError,
    ModelNotFound,
    OutOfMemory,
    Overloaded,
    VersionNotFound,
)
from fairway.core.settings import ModelSettings, Settings
from fairway.inference.held_model import Failure, HeldModel, refused_states, told
from fairway.inference.leaving import Leaving
from fairway.inference.live import Absent, LiveModel, LiveVersion, Table, describe_version, load_version
from fairway.inference.memory import resident_bytes, step_back
from fairway.inference.repository import State, VersionState
from fairway.inference.residency import Key, Plan, Resident, Wanted, over_budget, plan_residency
from fairway.inference.sizes import engine_bytes, import_engine
from fairway.registry.snapshot import ServedModel, ServedVersion
from fairway.stores.counters import Counters

logger = logging.getLogger("fairway.serving")

Load = Callable[[str, int, Path, Counters, Settings], LiveVersion]
Turn = Callable[[], AbstractContextManager[object]]
"""Held while a version is loaded: where several processes are to load one after the other."""

NICE = 5
"""How far loading steps back. No further: a thread that gets no time while it holds the interpreter holds up all."""
UNLOADED = "it was unloaded on request; load it first"
_COMING = "it is being loaded; try again in a moment"
_RETRY_SECONDS = 5.0
"""A version that could not be loaded when asked for is not tried again within this time."""
_ATTEMPTS = 3
_PLAIN = ModelSettings()


class Residents:
    """`follow` belongs to one thread; everything else may be called from any."""

    def __init__(
        self,
        counters: Counters,
        settings: Settings,
        load: Load = load_version,
        describe: Load = describe_version,
    ) -> None:
        self.table = Table((), settings.serving.default_model)
        self.publish: Callable[[Table], None] = lambda table: None
        """Called with every new table."""
        self.changes = 0
        """Counts up with everything that `states` would tell."""
        self._counters = counters
        self._settings = settings
        self._budget = settings.serving.memory_bytes
        self._load = load
        self._describe = describe
        self._models: dict[str, HeldModel] = {}
        self._unloaded: dict[str, ServedModel] = {}
        self._failed: dict[str, tuple[ServedModel, str]] = {}
        """Models that have never been served, and why."""
        self._coming: set[str] = set()
        """Models that are being loaded for the first time."""
        self._sizes: dict[str, int] = {}
        self._loading: set[Key] = set()
        self._lock = threading.RLock()
        self._one_at_a_time = threading.Lock()
        self._waited_for: dict[tuple[str, tuple[int, ...]], Future[LiveModel]] = {}
        self._executor: ThreadPoolExecutor | None = None
        self._leaving = Leaving()

    # Following the registry

    def open(self, models: Iterable[ServedModel]) -> None:
        """Loads what is to be there from the start. Raises what `load_version` raises for the first that fails, or
        OutOfMemory."""
        for served in models:
            self._renew(served, now=False, turn=nullcontext)

    def follow(
        self,
        models: Iterable[ServedModel],
        *,
        unloaded: Mapping[str, ServedModel] | None = None,
        now: Collection[str] = (),
        turn: Turn = nullcontext,
    ) -> dict[str, FairwayError]:
        """Serves `models` instead of what is served now, each as soon as it is ready. `unloaded` are not served, by
        request; `now` are to be loaded now, however they are loaded otherwise.

        Returns the errors of those that failed: they stay as they were, and are tried again the next time."""
        failed: dict[str, FairwayError] = {}
        wanted = {served.route.model: served for served in models}
        with self._lock:
            self._unloaded = dict(unloaded or {})
            for name in [name for name in self._models if name not in wanted]:
                for live in self._models.pop(name).loaded.values():
                    self._mark(live, loaded=False)
            self._failed = {name: why for name, why in self._failed.items() if name in wanted}
            self._coming = wanted.keys() - self._models.keys()
            self._announce()
        self.tidy()
        for name, served in wanted.items():
            current = self._models.get(name)
            if current is not None and current.served == served and name not in now:
                current.refused = None
                continue
            try:
                self._renew(served, now=name in now, turn=turn)
            except FairwayError as error:
                failed[name] = _plain(error)
                self._refuse(served, error)
            self.tidy()
        return failed

    def _refuse(self, served: ServedModel, error: FairwayError) -> None:
        name = served.route.model
        with self._lock:
            current = self._models.get(name)
            if current is not None:
                current.refused = (served, str(error))
                logger.error("%s goes on being served as it was: %s", name, str(error))
            else:
                self._failed[name] = (served, str(error))
                logger.error("%s is not served: %s", name, str(error))
            self._coming.discard(name)
            self._announce()
        labels = (("model", name), ("code", error.code))
        self._counters.add(self._counters.slot("fairway_reload_failures_total", labels))

    def _renew(self, served: ServedModel, *, now: bool, turn: Turn) -> None:
        """Loads what a model now needs, then has it serve. Raises what loading raises; nothing has changed then."""
        renewed = HeldModel(served)
        name = renewed.name
        with self._lock:
            self._take_over(renewed)
            current = self._models.get(name)
            was_there = current is not None and any(
                n in current.loaded for n in current.served.route.versions
            )
            must = now or was_there  # who was answered at once shall not wait now
            eager = must or self._settings.serving.load == "start" or self._own(name).pinned
            keys = {renewed.key(number) for number in renewed.routed} if eager else set()
            plan = self._plan(renewed, eager=keys, must=keys if must else set())
            self._let_go(key for key in plan.unload if key.model != name)
            self._announce()
        self.tidy()
        fresh: dict[int, LiveVersion] = {}
        for key in plan.load:
            with turn():
                fresh[key.version] = self._load_one(name, renewed.by_number[key.version])
        with self._lock:
            self._take_over(renewed)  # somebody may have asked for a version meanwhile
            renewed.loaded.update(fresh)
            self._fit(renewed, fresh, must=must or self._own(name).pinned)
            renewed.live = self._live(renewed)
            current = self._models.get(name)
            for number, live in current.loaded.items() if current is not None else ():
                if renewed.loaded.get(number) is not live:
                    self._mark(live, loaded=False)
            for live in fresh.values():
                if renewed.loaded.get(live.version) is live:
                    self._mark(live, loaded=True)
            self._failed.pop(name, None)
            self._coming.discard(name)
            self._models[name] = renewed
            self._announce()

    def _take_over(self, renewed: HeldModel) -> None:
        """What the model in the place of `renewed` has in memory and `renewed` needs, too."""
        current = self._models.get(renewed.name)
        if current is None:
            return
        known = renewed.by_number
        renewed.known = current.known
        renewed.demanded = {n for n in current.demanded if n in known} - renewed.routed
        renewed.loaded = {
            number: live
            for number, live in current.loaded.items()
            if number in known
            and known[number].digest == live.digest
            and (number in renewed.routed or number in renewed.demanded)
        }

    def _fit(self, renewed: HeldModel, fresh: Mapping[int, LiveVersion], *, must: bool) -> None:
        """Sees to the budget now that the sizes of `fresh` are known. OutOfMemory when it must be there and cannot."""
        if not self._budget or not fresh:
            return
        keys = {renewed.key(number) for number in fresh}
        others = [resident for resident in self._residents() if resident.key.model != renewed.name]
        own = [_resident(renewed.key(number), live) for number, live in renewed.loaded.items()]
        stay = keys | self._pinned()
        out = over_budget([*others, *own], stay, self._budget)
        if out == []:
            return
        if not must:  # there is no room for it beside the others: it is loaded when somebody asks
            for number in fresh:
                del renewed.loaded[number]
        elif out is None:
            raise self._no_room(renewed.name, sum(live.bytes for live in fresh.values()))
        else:
            self._let_go(key for key in out if key.model != renewed.name)
            for key in out:
                if key.model == renewed.name:
                    renewed.loaded.pop(key.version)

    def fall_back(self, served: ServedModel, failed: ServedModel, why: str) -> None:
        """Serves a model as it was before `failed`, which this process could not load. Errors: as `open`."""
        self._renew(served, now=False, turn=nullcontext)
        with self._lock:
            self._models[served.route.model].refused = (failed, why)
            self.changes += 1

    # On demand

    @property
    def patience_seconds(self) -> float:
        return self._settings.serving.load_seconds

    def load_soon(self, model: str, versions: Collection[int]) -> Future[LiveModel]:
        """See `Loads`. Each caller has a future of its own: one that gives up takes nothing from the others."""
        asked = (model, tuple(sorted(versions)))
        mine: Future[LiveModel] = Future()
        with self._lock:
            shared = self._waited_for.get(asked)
            if shared is None:
                if self._executor is None:
                    self._executor = ThreadPoolExecutor(1, thread_name_prefix="fairway-load")
                try:
                    shared = self._executor.submit(self._load_now, *asked)
                except RuntimeError:
                    mine.set_exception(Overloaded(f"the server stops; {model} is not loaded any more."))
                    return mine
                self._waited_for[asked] = shared
        shared.add_done_callback(partial(self._no_longer_waited_for, asked))
        shared.add_done_callback(partial(_copy, mine))
        return mine

    def _no_longer_waited_for(self, asked: tuple[str, tuple[int, ...]], _done: object) -> None:
        with self._lock:
            self._waited_for.pop(asked, None)

    def _load_now(self, name: str, versions: tuple[int, ...]) -> LiveModel:
        step_back(NICE)
        try:
            for _ in range(_ATTEMPTS):
                live = self._try_to_load(name, versions)
                if live is not None:
                    return live
        finally:
            self.tidy()
        raise Overloaded(f"{name} changes faster than it can be loaded.", hint="Try again.")

    def _try_to_load(self, name: str, versions: tuple[int, ...]) -> LiveModel | None:
        """None when the model was changed meanwhile."""
        with self._lock:
            current = self._models.get(name)
            if current is None:
                raise ModelNotFound(f"no model {name!r} is being served any more.")
            gone = [number for number in versions if number not in current.by_number]
            if gone:
                raise VersionNotFound(f"{name} has no version {gone[0]} here any more.")
            keys = {current.key(number) for number in versions if number not in current.loaded}
            for key in keys:
                failure = current.failures.get(key)
                if failure is not None and time.monotonic() < failure.when + _RETRY_SECONDS:
                    raise _plain(failure.error)
            plan = self._plan(current, eager=set(), must=keys)
            self._let_go(plan.unload)
            self._announce()
        self.tidy()
        for key in keys:
            try:
                fresh = self._load_one(name, current.by_number[key.version])
            except FairwayError as error:
                with self._lock:
                    current.failures[key] = Failure(_plain(error), time.monotonic())
                    self.changes += 1
                raise
            with self._lock:
                if self._models.get(name) is not current:
                    return None
                self._settle(current, key, fresh)
        with self._lock:
            return current.live if self._models.get(name) is current else None

    def _settle(self, current: HeldModel, key: Key, fresh: LiveVersion) -> None:
        """Takes in what was loaded on demand."""
        residents = [*self._residents(), _resident(key, fresh)]
        out = over_budget(residents, self._pinned() | {key}, self._budget)
        if out is None:
            raise self._no_room(f"{key.model}:{key.version}", fresh.bytes)
        self._let_go(out)
        if current.known is not None and current.known.digest == fresh.digest:
            fresh.cost = current.known.cost  # what its calls take was learned before
        current.failures.pop(key, None)
        current.loaded[key.version] = fresh
        if key.version not in current.routed:
            current.demanded.add(key.version)
        current.live = None
        self._mark(fresh, loaded=True)
        self._announce()

    # What there is

    def states(self) -> list[VersionState]:
        """Every version known here, by model and version."""
        with self._lock:
            states = [told(m, v, self._loading) for m in self._models.values() for v in m.served.versions]
            states += refused_states(
                (m.refused for m in self._models.values() if m.refused is not None), states
            )
            states += refused_states(self._failed.values(), [])
            states += [
                VersionState(
                    model=name, version=v.version, state=State.unloaded, reason=UNLOADED, aliases=v.aliases
                )
                for name, served in self._unloaded.items()
                for v in served.versions
            ]
        return sorted(states, key=lambda state: (state.model, state.version))

    def refusals(self) -> dict[str, str]:
        """Models that could not be served as the registry has them now, and why."""
        with self._lock:
            refused = {model.name: model.refused[1] for model in self._models.values() if model.refused}
            return refused | {name: why for name, (_, why) in self._failed.items()}

    def serving(self) -> dict[str, ServedModel]:
        """What each model is served as."""
        with self._lock:
            return {model.name: model.served for model in self._models.values()}

    @property
    def loading(self) -> bool:
        """Whether a version is being loaded now."""
        return bool(self._loading)

    # Memory

    def tidy(self) -> int:
        """Unloads versions that nobody uses any more, and gives their memory back. Returns how many."""
        return self._leaving.tidy()

    def close(self) -> None:
        """Loads nothing any more."""
        with self._lock:
            if self._executor is None:
                self._executor = ThreadPoolExecutor(1)
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _load_one(self, name: str, version: ServedVersion) -> LiveVersion:
        key = Key(name, version.version, version.digest)
        directory = Path(version.directory)
        with self._one_at_a_time:
            self._loading.add(key)
            self.changes += 1
            try:
                import_engine(directory)  # or the library's own memory would count as its first model's
                before = resident_bytes()
                live = self._load(name, version.version, directory, self._counters, self._settings)
                grown = resident_bytes() - before
            except FairwayError:
                raise
            except Exception as error:
                raise CorruptBundle(f"{name}:{version.version} cannot be loaded: {error}") from error
            finally:
                self._loading.discard(key)
        self._leaving.watch(live)
        if live.digest != version.digest:
            raise CorruptBundle(
                f"{directory} holds {live.digest}, and not {name}:{version.version}, {version.digest}."
            )
        live.bytes = max(grown, engine_bytes(directory), self._sizes.get(live.digest, 0))
        self._sizes[live.digest] = live.bytes
        return live

    def _let_go(self, keys: Iterable[Key]) -> None:
        for key in keys:
            model = self._models[key.model]
            live = model.loaded.pop(key.version)
            if key.version == model.main:
                model.known = LiveVersion(
                    key.model, key.version, live.bundle, Absent(), live.stats, self._settings
                )
                model.known.cost = live.cost
            model.demanded.discard(key.version)
            model.live = None
            self._mark(live, loaded=False)

    def _mark(self, live: LiveVersion, *, loaded: bool) -> None:
        if not loaded:
            self._leaving.expect(live)
        counters, labels = self._counters, (("model", live.model), ("version", str(live.version)))
        counters.values[counters.slot("fairway_model_info", (*labels, ("digest", live.digest)))] = float(
            loaded
        )
        counters.values[counters.slot("fairway_model_memory_bytes", labels)] = live.bytes if loaded else 0.0
        counters.add(
            counters.slot("fairway_model_loads_total" if loaded else "fairway_model_unloads_total", labels)
        )

    # Deciding

    def _plan(self, changed: HeldModel, *, eager: Collection[Key], must: Collection[Key]) -> Plan:
        """What to do so that `changed` can be in the place of its model. Raises OutOfMemory."""
        models = [*(model for model in self._models.values() if model.name != changed.name), changed]
        wanted = [want for model in models for want in self._wanted(model, eager, must)]
        plan = plan_residency(wanted, self._residents(), self._budget)
        if plan.refused:
            sizes = {want.key: want.bytes for want in wanted}
            key = plan.refused[0]
            raise self._no_room(f"{key.model}:{key.version}", sizes[key])
        return plan

    def _wanted(self, model: HeldModel, eager: Collection[Key], must: Collection[Key]) -> Iterator[Wanted]:
        """The versions of a model that may be in memory."""
        pinned, routed = self._own(model.name).pinned, model.routed
        for version in model.served.versions:
            key = model.key(version.version)
            if version.version in routed or version.version in model.demanded or key in must:
                yield Wanted(
                    key=key,
                    bytes=self._expected_bytes(version),
                    eager=key in eager,
                    must=key in must,
                    pinned=pinned and version.version in routed,
                )

    def _residents(self) -> list[Resident]:
        return [
            _resident(Key(model.name, number, live.digest), live)
            for model in self._models.values()
            for number, live in model.loaded.items()
        ]

    def _pinned(self) -> set[Key]:
        pinned = [model for model in self._models.values() if self._own(model.name).pinned]
        return {model.key(number) for model in pinned for number in model.routed}

    def _expected_bytes(self, version: ServedVersion) -> int:
        if not self._budget:
            return 0
        return self._sizes.get(version.digest) or engine_bytes(Path(version.directory))

    def _no_room(self, what: str, needed: int) -> OutOfMemory:
        return OutOfMemory(
            f"{what} takes {_megabytes(needed)} MB, more than can be made free of the "
            f"{_megabytes(self._budget)} MB for models (serving.memory_bytes).",
            hint="Unload or unpin another model, or allow more memory.",
        )

    def _own(self, name: str) -> ModelSettings:
        return self._settings.models.get(name, _PLAIN)

    # Showing

    def _announce(self) -> None:
        for model in self._models.values():
            if model.live is None:
                model.live = self._live(model)
        absent = dict.fromkeys(self._unloaded, UNLOADED) | dict.fromkeys(self._coming, _COMING)
        absent |= {name: why for name, (_, why) in self._failed.items()}
        lives = [model.live for model in self._models.values() if model.live is not None]
        self.table = Table(lives, self._settings.serving.default_model, absent)
        self.publish(self.table)
        self.changes += 1

    def _live(self, model: HeldModel) -> LiveModel:
        main, known = model.by_number[model.main], model.known
        if main.version not in model.loaded and (known is None or known.digest != main.digest):
            directory = Path(main.directory)
            known = model.known = self._describe(
                model.name, main.version, directory, self._counters, self._settings
            )
            labels = (("model", model.name), ("version", str(main.version)), ("digest", known.digest))
            self._counters.values[self._counters.slot("fairway_model_info", labels)] = 0.0
        aliases = {alias: version.version for version in model.served.versions for alias in version.aliases}
        unloaded = [number for number in model.by_number if number not in model.loaded]
        return LiveModel(model.served.route, model.loaded, aliases, unloaded, self, known)


def _resident(key: Key, live: LiveVersion) -> Resident:
    return Resident(key=key, bytes=live.bytes, used=live.used)


def _copy(mine: Future[LiveModel], shared: Future[LiveModel]) -> None:
    """Passes a shared result on, unless its caller has given up."""
    if not mine.set_running_or_notify_cancel():
        return
    if shared.cancelled():
        mine.set_exception(Overloaded("the server stops; nothing is loaded any more."))
        return
    error = shared.exception()
    if error is None:
        mine.set_result(shared.result())
    else:
        mine.set_exception(_plain(error) if isinstance(error, FairwayError) else error)


def _plain(error: FairwayError) -> FairwayError:
    """The same error without the frames it came through: they hold on to what was half loaded."""
    return type(error)(str(error))


def _megabytes(count: int) -> str:
    return f"{count / 2**20:.3g}"
