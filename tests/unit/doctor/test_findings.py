"""The doctor's judgement, on fabricated machines."""

import msgspec
import pytest

from fairway.doctor.findings import BAD_COMBINATIONS, Facts, Status, diagnose, healthy

WELL = Facts(
    python="3.11.7",
    requirements=(
        "numpy<3,>=2.1",
        "uvloop>=0.22; platform_system != 'Windows'",
        "tomli>=2; python_version < '3.11'",
        "scikit-learn<1.10,>=1.7; extra == 'sklearn'",
        "onnx<1.24,>=1.19; extra == 'sklearn'",
        "xgboost<3.3,>=3.0; extra == 'xgboost'",
        "fairway[sklearn]; extra == 'xgboost'",
        "psycopg[binary]<4,>=3.2; extra == 'postgres'",
        "fairway[sklearn,xgboost]; extra == 'all'",
    ),
    installed={"numpy": "2.4.6", "uvloop": "0.23.0", "scikit-learn": "1.9.1", "onnx": "1.23.2"},
    home="/srv/fairway",
    home_error=None,
    free_bytes=50 * 1024**3,
    ports={"--port": (8080, None), "--grpc-port": (8081, None)},
    registry="sqlite:////srv/fairway/registry.db",
    registry_error=None,
)


def ailing(**changes: object) -> Facts:
    return msgspec.structs.replace(WELL, **changes)


def problems(facts: Facts) -> list[tuple[str, str]]:
    return [(f.check, f.fix) for f in diagnose(facts) if f.status is Status.problem]


def test_a_well_machine_is_healthy_and_absent_extras_are_only_notes() -> None:
    findings = diagnose(WELL)
    assert healthy(findings)
    notes = {f.fix for f in findings if f.status is Status.note}
    assert notes == {"pip install 'fairway[xgboost]'", "pip install 'fairway[postgres]'"}
    assert any("scikit-learn 1.9.1" in f.message for f in findings if f.check == "extras")


@pytest.mark.parametrize("version", ["3.10.13", "3.14.0", "2.7.18"])
def test_a_python_outside_the_range(version: str) -> None:
    facts = ailing(python=version, requirements=())
    assert [check for check, _ in problems(facts)] == ["python"]


def test_a_missing_core_package_names_the_command_with_its_range() -> None:
    facts = ailing(installed={k: v for k, v in WELL.installed.items() if k != "numpy"})
    assert problems(facts) == [("packages", "pip install 'numpy<3,>=2.1'")]


@pytest.mark.parametrize(("name", "version"), [("numpy", "1.26.4"), ("numpy", "3.0.0"), ("onnx", "1.24.0")])
def test_a_version_outside_its_range(name: str, version: str) -> None:
    facts = ailing(installed={**WELL.installed, name: version})
    [(check, fix)] = problems(facts)
    assert check == "packages"
    assert fix.startswith(f"pip install '{name}")


def test_markers_decide_which_requirements_count() -> None:
    """tomli is for Python below 3.11 only, so its absence is nothing."""
    assert healthy(diagnose(WELL))


def test_half_an_extra_is_named_as_such() -> None:
    installed = {k: v for k, v in WELL.installed.items() if k != "onnx"}
    [finding] = [f for f in diagnose(ailing(installed=installed)) if "'sklearn'" in f.message]
    assert finding.status is Status.note
    assert "not complete (missing: onnx)" in finding.message


@pytest.mark.parametrize("bad", BAD_COMBINATIONS, ids=lambda bad: "+".join(bad.packages))
def test_known_bad_combinations(bad) -> None:
    fitting = {"ml-dtypes": "0.4.1", "onnx": "1.19.0"}
    both = {name: fitting.get(name, "1.30.0") for name in bad.packages}
    combined = [
        f for f in diagnose(ailing(installed={**WELL.installed, **both})) if f.check == "combinations"
    ]
    assert [f.fix for f in combined] == [bad.fix]
    apart = {**WELL.installed, **both}
    del apart[list(both)[-1]]
    assert not [f for f in diagnose(ailing(installed=apart)) if f.check == "combinations"]


def test_a_combination_counts_only_in_its_bad_versions() -> None:
    installed = {**WELL.installed, "ml-dtypes": "0.5.4"}
    assert healthy(diagnose(ailing(installed=installed)))


def test_a_missing_system_library_names_its_package() -> None:
    error = "OSError: libgomp.so.1: cannot open shared object file: No such file or directory"
    assert problems(ailing(broken_imports={"lightgbm": error})) == [
        ("imports", "apt-get install -y libgomp1")
    ]


def test_any_other_broken_import_is_installed_again() -> None:
    facts = ailing(broken_imports={"onnxruntime": "ImportError: DLL load failed"})
    assert problems(facts) == [("imports", "pip install --force-reinstall onnxruntime")]


def test_a_home_that_cannot_be_written() -> None:
    [(check, fix)] = problems(ailing(home_error="Permission denied"))
    assert check == "home"
    assert "chown" in fix


def test_little_disk_warns_and_almost_none_is_a_problem() -> None:
    assert [f.check for f in diagnose(ailing(free_bytes=2 * 1024**3)) if f.status is Status.warning] == [
        "disk"
    ]
    assert [check for check, _ in problems(ailing(free_bytes=10_000_000))] == ["disk"]


def test_a_taken_port_is_a_warning_with_a_way_around() -> None:
    findings = diagnose(
        ailing(ports={"--port": (8080, None), "--grpc-port": (65001, "Address already in use")})
    )
    [taken] = [f for f in findings if f.status is Status.warning]
    assert "65001" in taken.message
    assert taken.fix == "fairway serve --grpc-port 64001"
    assert healthy(findings)


def test_a_registry_that_is_away() -> None:
    facts = ailing(registry_error="could not connect to server")
    assert [check for check, _ in problems(facts)] == ["registry"]


def test_settings_that_cannot_be_read() -> None:
    facts = ailing(settings_error="settings of /srv/fairway are wrong: unknown key `prot`.")
    assert problems(facts) == [("settings", "${EDITOR:-vi} /srv/fairway/fairway.toml")]


def test_a_broken_environment_of_a_model_comes_with_the_command_that_mends_it() -> None:
    seen = ailing(
        environments={
            "the environment 0123 of legacy:1": "it is not there",
            "the environment 4567 of b:2": "",
        }
    )
    assert problems(seen) == [("environments", "fairway environments --mend --home /srv/fairway")]
    told = [f.message for f in diagnose(seen) if f.check == "environments"]
    assert told == [
        "the environment 0123 of legacy:1 cannot be used: it is not there.",
        "the environment 4567 of b:2 works",
    ]


def test_certificates_that_end_soon_have_ended_or_cannot_be_read() -> None:
    told = {
        finding.check: finding
        for finding in diagnose(ailing(certificates={"a": 200.4, "b": 12.0, "c": -3.0, "d": "no such file"}))
        if finding.check.startswith("certificate ")
    }
    assert [finding.status for finding in told.values()] == [
        Status.ok, Status.warning, Status.problem, Status.problem,
    ]  # fmt: skip
    assert "ended 3 days ago" in told["certificate c"].message
    assert not healthy(diagnose(ailing(certificates={"c": -3.0})))
    assert healthy(diagnose(ailing(certificates={"b": 12.0})))
