"""A bundle with an edited contract: everything else, the model and its proof, stays as it was."""

from __future__ import annotations

from pathlib import Path

import msgspec

from fairway.core.contract import Contract, Field
from fairway.core.errors import InvalidInput, Problem
from fairway.packaging.bundle import NEEDED, Bundle, write_bundle
from fairway.packaging.card import with_inputs
from fairway.packaging.profile import Profile
from fairway.packaging.reference import FILE as REFERENCE
from fairway.packaging.reference import without_private
from fairway.packaging.rules import check_contract
from fairway.packaging.verify import verify_bundle

FIXED = ("dtype", "shape", "nullable")
"""What the model was converted and proved with; changing it needs packaging again."""


def read_profile(bundle: Bundle) -> Profile:
    return msgspec.json.decode((bundle.directory / "profile.json").read_bytes(), type=Profile)


def amend_contract(bundle: Bundle, contract: Contract, out: Path) -> Bundle:
    """Writes `bundle` with another contract at `out`, and verifies it.

    Rules, limits, categories, imputation and descriptions may change. Raises InvalidInput, naming each field,
    where names, types or outputs differ, or nothing does.
    """
    problems = _fixed_problems(bundle.contract, contract)
    if problems:
        told = "; ".join(f"{problem.field or 'contract'}: {problem.reason}" for problem in problems)
        raise InvalidInput(
            f"The model was packaged with another contract: {told}.",
            problems,
            hint="Package it again instead.",
        )
    if contract == bundle.contract:
        raise InvalidInput("The contract is the same as before: nothing to register.")
    check_contract(contract)
    carried = {
        path: (bundle.directory / path).read_bytes() for path in bundle.manifest.files if path not in NEEDED
    }
    if REFERENCE in carried:
        carried[REFERENCE] = without_private(carried[REFERENCE], contract)
    card = (bundle.directory / "card.md").read_text(encoding="utf-8")
    write_bundle(
        out,
        spec=bundle.spec,
        contract=contract,
        files=carried,
        golden=bundle.golden,
        profile=read_profile(bundle),
        environment=bundle.environment,
        proof=bundle.proof,
        card=with_inputs(card, contract),
        timings=bundle.timings,
    )
    return verify_bundle(out)


def _fixed_problems(before: Contract, after: Contract) -> tuple[Problem, ...]:
    problems = []
    if [field.name for field in before] != [field.name for field in after]:
        told = ", ".join(field.name for field in before)
        problems.append(Problem(f"the fields must be {told}, in this order"))
    fields = {field.name: field for field in after}
    for field in before:
        if field.name in fields:
            problems += [Problem(reason, field.name) for reason in _differences(field, fields[field.name])]
    if (before.outputs, before.task) != (after.outputs, after.task):
        problems.append(Problem("outputs and task are the model's own"))
    return tuple(problems)


def _differences(before: Field, after: Field) -> list[str]:
    return [
        f"{name} is {_shown(getattr(before, name))} and cannot become {_shown(getattr(after, name))}"
        for name in FIXED
        if getattr(before, name) != getattr(after, name)
    ]


def _shown(value: object) -> str:
    return str(list(value)) if isinstance(value, tuple) else str(value).lower()
