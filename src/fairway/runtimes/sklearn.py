"""scikit-learn estimators and pipelines, from a skops file: no pickle ever reaches a server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fairway.core.bundle import EngineSpec
from fairway.core.contract import Contract
from fairway.core.errors import CorruptBundle
from fairway.runtimes.estimator import EstimatorEngine, input_form, task_of
from fairway.security.skops_file import load_skops


def load(directory: Path, spec: EngineSpec, contract: Contract, threads: int) -> EstimatorEngine:
    """`spec.trusted` are the types the packager trusted; `spec.options`: input and dtypes (JSON).

    Raises `UntrustedArtifact` for any other type that is not on the allow-list, `EnvironmentMismatch` for an
    estimator of another scikit-learn, and `CorruptBundle`.
    """
    path = directory / spec.file
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CorruptBundle(f"{path} cannot be read: {error.strerror}.") from error
    estimator = load_skops(data, spec.trusted, source=str(path))
    limit_threads(estimator, threads)
    fields = spec.prepared_fields or tuple(field.name for field in contract)
    dtypes = json.loads(spec.options.get("dtypes", "{}"))
    return EstimatorEngine(estimator, fields, task_of(estimator), input_form(spec.options), dtypes)


def limit_threads(estimator: Any, threads: int) -> None:
    """Keeps one call to `threads` threads, wherever the estimator was trained with n_jobs=-1.

    The pools of OpenMP and BLAS belong to the whole process, and are set once: setting them around each call
    takes milliseconds.
    """
    # comes with scikit-learn, which is optional
    from threadpoolctl import threadpool_limits

    threadpool_limits(limits=threads)
    parameters = estimator.get_params(deep=True) if hasattr(estimator, "get_params") else {}
    for name, value in parameters.items():
        if name == "n_jobs" or name.endswith("__n_jobs"):
            estimator.set_params(**{name: threads})
        elif hasattr(value, "get_booster") and value.__sklearn_is_fitted__():
            value.get_booster().set_param({"nthread": threads})
    if hasattr(estimator, "get_booster"):
        estimator.get_booster().set_param({"nthread": threads})
