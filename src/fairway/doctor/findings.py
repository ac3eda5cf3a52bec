"""From facts about a machine to findings, each with the command that mends it. Pure."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from itertools import chain

import msgspec
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

PYTHONS = SpecifierSet(">=3.11,<3.14")
LEAST_FREE_BYTES = 1024**3
LITTLE_FREE_BYTES = 5 * 1024**3
SOON_DAYS = 30
PACKAGE = "fairway"


_LAST_PORT = 65_535


class Status(enum.StrEnum):
    ok = "ok"
    note = "note"  # nothing is wrong; something optional is absent
    warning = "warning"  # works today, may not tomorrow
    problem = "problem"  # something a user asks for will fail


class Finding(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing looked at. `fix` is a command for a shell, or empty when nothing needs mending."""

    check: str
    status: Status
    message: str
    fix: str = ""


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen.

    `requirements` are the lines of Fairway's own metadata, extras as markers; `installed` maps canonical
    distribution names to versions. `home_error`, `registry_error` and `settings_error` are what was said when
    asked to write there, to open it or to read them (None: it worked). `ports` maps the option
    of `fairway serve` that says another -> port and the system's complaint or None.
    `environments` maps what models run in, such as "the environment 0123456789ab of legacy:1", to what is wrong with it
    ("": nothing). `broken_imports` maps a distribution to the error its import gave, for those with parts outside Python.
    """

    python: str
    requirements: tuple[str, ...]
    installed: Mapping[str, str]
    home: str
    home_error: str | None
    free_bytes: int
    ports: Mapping[str, tuple[int, str | None]]
    registry: str
    registry_error: str | None
    settings_error: str | None = None
    broken_imports: Mapping[str, str] = {}
    environments: Mapping[str, str] = {}
    certificates: Mapping[str, float | str] = {}
    """File of certificates -> days until the first of them ends, below 0 when it has ended; or why it cannot be read."""


class BadCombination(msgspec.Struct, frozen=True):
    """Versions that are each in range and do not work together. An empty specifier means any version."""

    packages: Mapping[str, str]
    reason: str
    fix: str


BAD_COMBINATIONS = (
    BadCombination(
        {"onnxruntime": "", "onnxruntime-gpu": ""},
        "both install the folder `onnxruntime` and overwrite each other's files",
        "pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu",
    ),
    BadCombination(
        {"onnx": "", "ml-dtypes": "<0.5"},
        "onnx 1.19 reads ml_dtypes.float4_e2m1fn, which came with ml-dtypes 0.5, and does not ask for it",
        "pip install 'ml-dtypes>=0.5'",
    ),
    BadCombination(
        {"xgboost": "", "xgboost-cpu": ""},
        "both install the folder `xgboost` and overwrite each other's files",
        "pip uninstall -y xgboost xgboost-cpu && pip install 'fairway[xgboost]'",
    ),
)


def diagnose(facts: Facts) -> tuple[Finding, ...]:
    """Every finding, in the order a person would look."""
    return tuple(
        chain(
            [_python(facts.python)],
            _packages(facts.requirements, facts.installed, facts.python),
            _extras(facts.requirements, facts.installed, facts.python),
            _combinations(facts.installed),
            _imports(facts.broken_imports),
            _home(facts),
            _settings(facts),
            _ports(facts.ports),
            _certificates(facts.certificates),
            [_registry(facts)],
            _environments(facts.environments, facts.home),
        )
    )


def healthy(findings: tuple[Finding, ...]) -> bool:
    return all(finding.status is not Status.problem for finding in findings)


def _python(version: str) -> Finding:
    if Version(version) in PYTHONS:
        return Finding("python", Status.ok, f"Python {version}")
    return Finding(
        "python",
        Status.problem,
        f"Python {version} is outside the tested range {PYTHONS}.",
        "python3.12 -m venv .venv && .venv/bin/pip install fairway",
    )


def _packages(requirements: tuple[str, ...], installed: Mapping[str, str], python: str) -> Iterator[Finding]:
    """The packages Fairway always needs: there, and in the tested range."""
    wrong = 0
    needed = [r for r in map(Requirement, requirements) if _applies(r, "", python)]
    for requirement in needed:
        complaint = _complaint(requirement, installed)
        if complaint:
            wrong += 1
            yield Finding("packages", Status.problem, complaint, _install(requirement))
    if not wrong:
        yield Finding("packages", Status.ok, f"{len(needed)} core packages are in their tested ranges")


def _extras(requirements: tuple[str, ...], installed: Mapping[str, str], python: str) -> Iterator[Finding]:
    """Each extra: complete, absent, or half there. A package out of range is a problem, an absent one is not."""
    parsed = [Requirement(text) for text in requirements]
    extras = {extra for r in parsed if r.marker for extra in _extra_names(str(r.marker))}
    contents = {
        extra: [
            r
            for r in parsed
            if _applies(r, extra, python) and not _applies(r, "", python) and r.name != PACKAGE
        ]
        for extra in extras
    }
    told: set[str] = set()
    for extra, own in sorted(contents.items(), key=lambda item: (len(item[1]), item[0])):
        if not own:
            continue  # only a name for other extras
        missing = [r for r in own if canonicalize_name(r.name) not in installed]
        misfits = [
            (r, complaint)
            for r in own
            if r not in missing and r.name not in told and (complaint := _complaint(r, installed)) is not None
        ]
        for requirement, complaint in misfits:
            yield Finding("packages", Status.problem, complaint, _install(requirement))
        if missing:
            names = ", ".join(r.name for r in missing)
            yield Finding(
                "extras",
                Status.note,
                f"extra {extra!r} is not {'complete' if len(missing) < len(own) else 'installed'} (missing: {names})",
                f"pip install 'fairway[{extra}]'",
            )
        elif not misfits:
            new = [f"{r.name} {installed[canonicalize_name(r.name)]}" for r in own if r.name not in told]
            yield Finding("extras", Status.ok, f"extra {extra!r} is complete: {', '.join(new)}".rstrip(": "))
        told.update(r.name for r in own)


def _combinations(
    installed: Mapping[str, str], known: tuple[BadCombination, ...] = BAD_COMBINATIONS
) -> Iterator[Finding]:
    for bad in known:
        if all(
            name in installed and _version(installed[name]) in SpecifierSet(versions, prereleases=True)
            for name, versions in bad.packages.items()
        ):
            pair = " with ".join(f"{name} {installed[name]}" for name in bad.packages)
            yield Finding("combinations", Status.problem, f"{pair}: {bad.reason}.", bad.fix)


def _imports(broken: Mapping[str, str]) -> Iterator[Finding]:
    for name, error in broken.items():
        if "libgomp" in error:
            message = f"{name} is installed, but the system library libgomp is not."
            yield Finding("imports", Status.problem, message, "apt-get install -y libgomp1")
        else:
            message = f"{name} is installed and cannot be imported: {error}"
            yield Finding("imports", Status.problem, message, f"pip install --force-reinstall {name}")


def _home(facts: Facts) -> Iterator[Finding]:
    if facts.home_error is not None:
        yield Finding(
            "home",
            Status.problem,
            f"cannot write to {facts.home}: {facts.home_error}",
            f'sudo mkdir -p {facts.home} && sudo chown -R "$(id -u)" {facts.home}',
        )
        return
    free = f"{facts.free_bytes / 1024**3:.1f} GiB free at {facts.home}"
    if facts.free_bytes < LEAST_FREE_BYTES:
        yield Finding(
            "disk",
            Status.problem,
            f"{free}: too little for models and their log.",
            f"du -sh {facts.home}/*",
        )
    elif facts.free_bytes < LITTLE_FREE_BYTES:
        message = f"{free}: the prediction log alone may take 2 GiB per model."
        yield Finding("disk", Status.warning, message, f"du -sh {facts.home}/*")
    else:
        yield Finding("home", Status.ok, free)


def _settings(facts: Facts) -> Iterator[Finding]:
    if facts.settings_error is not None:
        yield Finding(
            "settings", Status.problem, facts.settings_error, f"${{EDITOR:-vi}} {facts.home}/fairway.toml"
        )


def _ports(ports: Mapping[str, tuple[int, str | None]]) -> Iterator[Finding]:
    for option, (port, error) in ports.items():
        if error is None:
            yield Finding("ports", Status.ok, f"port {port} is free")
        else:
            yield Finding(
                "ports",
                Status.warning,
                f"port {port} cannot be used: {error}. A Fairway that is already serving is the usual reason.",
                f"fairway serve {option} {port + 1000 if port + 1000 <= _LAST_PORT else port - 1000}",
            )


def _certificates(certificates: Mapping[str, float | str]) -> Iterator[Finding]:
    renew = "renew it; a running server takes the new file within seconds"
    for path, days in certificates.items():
        check = f"certificate {path}"
        if isinstance(days, str):
            yield Finding(check, Status.problem, f"the certificate {path} cannot be read: {days}")
        elif days < 0:
            yield Finding(
                check, Status.problem, f"the certificate {path} ended {-days:.0f} days ago: {renew}"
            )
        elif days < SOON_DAYS:
            yield Finding(check, Status.warning, f"the certificate {path} ends in {days:.0f} days: {renew}")
        else:
            yield Finding(check, Status.ok, f"the certificate {path} is good for {days:.0f} days")


def _registry(facts: Facts) -> Finding:
    if facts.registry_error is None:
        return Finding("registry", Status.ok, f"registry {facts.registry} answers")
    return Finding(
        "registry",
        Status.problem,
        f"registry {facts.registry} cannot be opened: {facts.registry_error}",
        f"${{EDITOR:-vi}} {facts.home}/fairway.toml  # [registry] database_url, blobs_url",
    )


def _environments(environments: Mapping[str, str], home: str) -> Iterator[Finding]:
    for name, complaint in environments.items():
        if complaint:
            yield Finding(
                "environments",
                Status.problem,
                f"{name} cannot be used: {complaint}.",
                f"fairway environments --mend --home {home}",
            )
        else:
            yield Finding("environments", Status.ok, f"{name} works")


def _applies(requirement: Requirement, extra: str, python: str) -> bool:
    if requirement.marker is None:
        return True
    release = Version(python).release
    environment = {
        "extra": extra,
        "python_full_version": python,
        "python_version": f"{release[0]}.{release[1]}",
    }
    return requirement.marker.evaluate(environment)


def _extra_names(marker: str) -> Iterator[str]:
    for part in marker.replace("'", '"').split("extra == ")[1:]:
        yield part.split('"')[1]


def _complaint(requirement: Requirement, installed: Mapping[str, str]) -> str | None:
    found = installed.get(canonicalize_name(requirement.name))
    if found is None:
        return f"{requirement.name} is not installed."
    if not requirement.specifier.contains(found, prereleases=True):
        return f"{requirement.name} {found} is outside the tested range {requirement.specifier}."
    return None


def _install(requirement: Requirement) -> str:
    extras = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
    return f"pip install '{requirement.name}{extras}{requirement.specifier}'"


def _version(text: str) -> Version:
    try:
        return Version(text)
    except InvalidVersion:
        return Version("0")
