"""Errors by meaning; transports translate them, nothing here knows HTTP.

FairwayError
├── InvalidInput                the caller's data is wrong; `problems` names every place
│   ├── MalformedInput          could not be read at all (syntax, shape, encoding)
│   ├── ContractViolation       was read, breaks the contract
│   ├── PayloadTooLarge
│   ├── UnsupportedContent      content type or encoding nobody here reads
│   └── NotAcceptable           no form of answer that the caller takes can be written here
├── NotFound
│   ├── ModelNotFound
│   ├── VersionNotFound
│   ├── AliasNotFound
│   ├── KeyNotFound             no API key of that name is in use
│   ├── RunNotFound             no batch run of that name is known
│   ├── ScheduleNotFound        no schedule of that name is known
│   ├── AnswerNotFound          nothing was precomputed for that key, and there is nothing else to answer with
│   ├── IncidentNotFound        no incident, silence or message of that name is known
│   └── ChannelNotFound         no alert channel of that name is set up
├── Conflict
│   ├── AlreadyExists
│   ├── RouteConflict           compare-and-set lost: somebody changed the route first
│   ├── LeaseLost               another control process leads now; what this one was about to write is not written
│   └── IncompatibleContract    versions behind one route must share one input contract
├── ArtifactError               a model file or bundle cannot be used
│   ├── UntrustedArtifact       references code that is not on the allow-list
│   ├── UnknownFormat
│   ├── CorruptBundle           truncated or altered
│   ├── NewerFormat             written by a newer Fairway
│   ├── EnvironmentMismatch     needs other package versions
│   ├── EnvironmentFailed       its own environment cannot be made, or its model does not start in it
│   ├── GoldenMismatch          gives other answers than when it was packaged
│   └── ProofFailed             the converted model disagrees and nothing else may be used
├── Unavailable                 try again later
│   ├── RegistryUnavailable     database or object store away, or held by another process
│   ├── AnswersUnavailable      the store of precomputed answers is away, damaged or being written
│   ├── StorageFull
│   ├── Overloaded              a queue is full
│   └── OutOfMemory             the model does not fit beside those that must stay
├── DeadlineExceeded            the caller's time was up before the answer was
├── AccessDenied
│   ├── Unauthenticated         no key, or one nobody knows, or an expired one
│   ├── Forbidden               the key does not reach so far
│   └── RateLimited             more requests than the key may make; `retry_after` seconds
├── NotSupported                asked for something that this model or server does not do
├── DeliveryFailed              a channel did not take a message; `permanent` when it never will
├── CorruptRegistry             the registry's database is damaged; trying again does not help
├── MissingExtra                an optional package is needed; the message says which extra
├── InsecureBinding             refuses to listen beyond loopback without authentication
├── SettingsError
└── ModelFailed                 the model itself raised while predicting
"""

from __future__ import annotations

import msgspec


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing wrong with an input: where it is and what it is."""

    reason: str
    field: str | None = None
    row: int | None = None


class FairwayError(Exception):
    """Base of every error Fairway raises on purpose. `code` is stable and part of the public surface."""

    code = "fairway_error"

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message if hint is None else f"{message} {hint}")
        self.hint = hint


class InvalidInput(FairwayError):
    code = "invalid_input"

    def __init__(self, message: str, problems: tuple[Problem, ...] = (), *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.problems = problems


class MalformedInput(InvalidInput):
    code = "malformed_input"


class ContractViolation(InvalidInput):
    code = "contract_violation"


class PayloadTooLarge(InvalidInput):
    code = "payload_too_large"


class UnsupportedContent(InvalidInput):
    code = "unsupported_content"


class NotAcceptable(InvalidInput):
    code = "not_acceptable"


class NotFound(FairwayError):
    code = "not_found"


class ModelNotFound(NotFound):
    code = "model_not_found"


class VersionNotFound(NotFound):
    code = "version_not_found"


class AliasNotFound(NotFound):
    code = "alias_not_found"


class KeyNotFound(NotFound):
    code = "key_not_found"


class AnswerNotFound(NotFound):
    code = "answer_not_found"


class RunNotFound(NotFound):
    code = "run_not_found"


class ScheduleNotFound(NotFound):
    code = "schedule_not_found"


class IncidentNotFound(NotFound):
    code = "incident_not_found"


class ChannelNotFound(NotFound):
    code = "channel_not_found"


class Conflict(FairwayError):
    code = "conflict"


class AlreadyExists(Conflict):
    code = "already_exists"


class RouteConflict(Conflict):
    code = "route_conflict"


class LeaseLost(Conflict):
    code = "lease_lost"


class IncompatibleContract(Conflict):
    code = "incompatible_contract"


class ArtifactError(FairwayError):
    code = "artifact_error"


class UntrustedArtifact(ArtifactError):
    """`names` lists every refused `module.name` found in the artefact."""

    code = "untrusted_artifact"

    def __init__(self, message: str, names: tuple[str, ...] = (), *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.names = names


class UnknownFormat(ArtifactError):
    code = "unknown_format"


class CorruptBundle(ArtifactError):
    code = "corrupt_bundle"


class NewerFormat(ArtifactError):
    code = "newer_format"


class EnvironmentMismatch(ArtifactError):
    code = "environment_mismatch"


class EnvironmentFailed(ArtifactError):
    code = "environment_failed"


class GoldenMismatch(ArtifactError):
    code = "golden_mismatch"


class ProofFailed(ArtifactError):
    code = "proof_failed"


class Unavailable(FairwayError):
    code = "unavailable"


class RegistryUnavailable(Unavailable):
    code = "registry_unavailable"


class AnswersUnavailable(Unavailable):
    code = "answers_unavailable"


class StorageFull(Unavailable):
    code = "storage_full"


class Overloaded(Unavailable):
    code = "overloaded"


class OutOfMemory(Unavailable):
    code = "out_of_memory"


class DeadlineExceeded(FairwayError):
    code = "deadline_exceeded"


class AccessDenied(FairwayError):
    code = "access_denied"


class Unauthenticated(AccessDenied):
    code = "unauthenticated"


class Forbidden(AccessDenied):
    code = "forbidden"


class RateLimited(AccessDenied):
    """`retry_after` is how many seconds to wait."""

    code = "rate_limited"

    def __init__(self, message: str, retry_after: float = 1.0, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after


class NotSupported(FairwayError):
    code = "not_supported"


class DeliveryFailed(FairwayError):
    """`permanent`: the receiver will never take this message. `retry_after` is how many seconds it asked to wait."""

    code = "delivery_failed"

    def __init__(
        self,
        message: str,
        *,
        permanent: bool = False,
        retry_after: float | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.permanent = permanent
        self.retry_after = retry_after


class CorruptRegistry(FairwayError):
    code = "corrupt_registry"


class MissingExtra(FairwayError):
    code = "missing_extra"


class InsecureBinding(FairwayError):
    code = "insecure_binding"


class SettingsError(FairwayError):
    code = "settings_error"


class ModelFailed(FairwayError):
    code = "model_failed"
