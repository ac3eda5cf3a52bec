"""The registry's rows in SQL, the same statements for SQLite and PostgreSQL."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import sqlalchemy as sa

from fairway.core.bundle import File
from fairway.core.route import Route
from fairway.core.version import Change, ModelVersion
from fairway.security.keys import AccessKey
from fairway.stores.schema import aliases, changes, files, keys, registry, routes, versions


class SqlRows:
    """Rows seen through one connection with an open transaction."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def revision(self) -> int:
        return int(self._connection.execute(sa.select(registry.c.revision)).scalar_one())

    def models(self) -> dict[str, tuple[int, int]]:
        counts = sa.select(versions.c.model, sa.func.count(), sa.func.max(versions.c.version))
        found = self._connection.execute(counts.group_by(versions.c.model))
        return {model: (count, latest) for model, count, latest in found}

    def versions(self, model: str) -> tuple[ModelVersion, ...]:
        return self._versions(model, sa.true())

    def version(self, model: str, number: int) -> ModelVersion | None:
        return next(iter(self._versions(model, versions.c.version == number)), None)

    def version_with(self, model: str, digest: str) -> ModelVersion | None:
        return next(iter(self._versions(model, versions.c.digest == digest)), None)

    def latest(self, model: str) -> int:
        highest = sa.select(sa.func.max(versions.c.version)).where(versions.c.model == model)
        return int(self._connection.execute(highest).scalar_one() or 0)

    def files(self, model: str, number: int) -> dict[str, File]:
        found = self._connection.execute(
            sa.select(files.c.path, files.c.sha256, files.c.size)
            .where(files.c.model == model, files.c.version == number)
            .order_by(files.c.path)
        )
        return {path: File(sha256=sha256, size=size) for path, sha256, size in found}

    def kept(self) -> set[str]:
        return set(self._connection.execute(sa.select(files.c.sha256).distinct()).scalars())

    def aliases(self, model: str | None = None) -> dict[str, dict[str, int]]:
        query = sa.select(aliases.c.model, aliases.c.alias, aliases.c.version)
        if model is not None:
            query = query.where(aliases.c.model == model)
        found: dict[str, dict[str, int]] = {}
        for name, alias, number in self._connection.execute(query):
            found.setdefault(name, {})[alias] = number
        return found

    def routes(self, model: str | None = None) -> dict[str, Route]:
        query = sa.select(routes.c.model, routes.c.route)
        if model is not None:
            query = query.where(routes.c.model == model)
        return {name: msgspec.json.decode(text, type=Route) for name, text in self._connection.execute(query)}

    def changes(self, model: str, *, what: str | None = None, limit: int | None = None) -> tuple[Change, ...]:
        query = sa.select(changes).where(changes.c.model == model).order_by(changes.c.sequence.desc())
        if what is not None:
            query = query.where(changes.c.what == what)
        return tuple(
            Change(
                sequence=row.sequence,
                model=row.model,
                what=row.what,
                before=row.before,
                after=row.after,
                who=row.who,
                why=row.why,
                when=row.at,
                restores=row.restores,
            )
            for row in self._connection.execute(query.limit(limit))
        )

    def add_version(self, version: ModelVersion, contents: Mapping[str, File]) -> None:
        row = msgspec.structs.asdict(version)
        del row["aliases"]
        self._connection.execute(sa.insert(versions).values(row))
        key = {"model": version.model, "version": version.version}
        rows = [
            {**key, "path": path, "sha256": file.sha256, "size": file.size} for path, file in contents.items()
        ]
        if rows:
            self._connection.execute(sa.insert(files), rows)

    def put_alias(self, model: str, alias: str, number: int | None) -> None:
        here = (aliases.c.model == model, aliases.c.alias == alias)
        self._connection.execute(sa.delete(aliases).where(*here))
        if number is not None:
            row = {"model": model, "alias": alias, "version": number}
            self._connection.execute(sa.insert(aliases).values(row))

    def put_route(self, route: Route) -> None:
        self._connection.execute(sa.delete(routes).where(routes.c.model == route.model))
        row = {"model": route.model, "route": msgspec.json.encode(route).decode(), "revision": route.revision}
        self._connection.execute(sa.insert(routes).values(row))

    def access_keys(self) -> tuple[AccessKey, ...]:
        found = self._connection.execute(sa.select(keys.c.key)).scalars()
        decoded = [msgspec.json.decode(text, type=AccessKey) for text in found]
        return tuple(sorted(decoded, key=lambda key: (key.created, key.id)))

    def put_access_key(self, key: AccessKey) -> None:
        row = {"name": key.name, "key": msgspec.json.encode(key).decode(), "revoked": key.revoked}
        known = self._connection.execute(sa.update(keys).where(keys.c.id == key.id).values(row))
        if known.rowcount == 0:
            self._connection.execute(sa.insert(keys).values(id=key.id, **row))

    def append(self, change: Change) -> Change:
        stored = msgspec.structs.replace(change, sequence=self.revision() + 1)
        row = msgspec.structs.asdict(stored)
        row["at"] = row.pop("when")
        self._connection.execute(sa.insert(changes).values(row))
        self._connection.execute(sa.update(registry).values(revision=stored.sequence))
        return stored

    def _versions(self, model: str, condition: sa.ColumnElement[bool]) -> tuple[ModelVersion, ...]:
        names: dict[int, list[str]] = {}
        for alias, number in self.aliases(model).get(model, {}).items():
            names.setdefault(number, []).append(alias)
        found = self._connection.execute(
            sa.select(versions).where(versions.c.model == model, condition).order_by(versions.c.version)
        )
        return tuple(
            ModelVersion(**row, aliases=tuple(sorted(names.get(row["version"], ()))))
            for row in found.mappings()
        )
