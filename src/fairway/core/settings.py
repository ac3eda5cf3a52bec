"""Settings as small frozen groups under one root. Read once by `fairway.app` from the environment and
`fairway.toml`, then passed down; nothing else reads the environment. An unknown
key is an error, so a typing mistake cannot pass silently."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from fairway.core.alert_settings import AlertSettings
from fairway.core.schedule import BatchOptions


class RegistrySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    database_url: str = ""
    """SQLAlchemy URL; empty means SQLite at `<home>/registry.db`."""
    blobs_url: str = ""
    """fsspec URL of the content-addressed files; empty means `<home>/blobs`."""
    blobs_options: dict[str, Any] = {}
    """Options of the fsspec filesystem behind `blobs_url`, such as `endpoint_url`."""
    lock_timeout_seconds: float = 10.0
    """How long to wait for a registry that another process holds."""


class LimitSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    body_bytes: int = 64 * 1024 * 1024
    """Largest request body."""
    rows: int = 100_000
    """Most rows in one request."""
    problems: int = 100
    """Most problems listed in one error answer; the rest are counted."""
    header_bytes: int = 64 * 1024
    """Largest request line and headers together."""
    connections: Annotated[int, msgspec.Meta(ge=1)] = 10_000
    """Most connections that a worker holds, of HTTP and of gRPC each; more are closed at once, over HTTP with 503."""
    receive_seconds: Annotated[float, msgspec.Meta(gt=0)] = 75.0
    """How long a request may take to arrive whole, and a gRPC answer to be read, beside the time that its bytes need at
    `receive_rate`; over HTTP it is answered 408, over gRPC DEADLINE_EXCEEDED."""
    receive_rate: Annotated[int, msgspec.Meta(gt=0)] = 4096
    """Bytes a second that the slowest client has to send or read."""
    waiting_bytes: Annotated[int, msgspec.Meta(gt=0)] = 1024 * 1024 * 1024
    """Most bytes of half-sent messages and unread answers that a worker holds for all gRPC connections together; calls
    that would need more are answered RESOURCE_EXHAUSTED."""
    grpc_idle_seconds: Annotated[float, msgspec.Meta(gt=0)] = 3600.0
    """A gRPC connection without a call for so long is asked to go and closed; clients open a new one by themselves."""


class ServingSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    host: str = "127.0.0.1"
    """Elsewhere than on loopback only with keys, best with TLS, or with --insecure."""
    port: int = 8080
    """Of HTTP; 0: a free one."""
    grpc: bool = True
    """Whether gRPC is served too; it needs the extra `grpc`."""
    grpc_port: int | None = None
    """None: 8081, or a free one where `port` is 0, which any free port is meant by."""
    workers: int = 1
    """Processes that answer; each holds the models."""
    inline_seconds: float = 0.002
    """Calls expected to take longer run in a thread instead of the event loop."""
    threads: int = 4
    """Threads for calls that do not run inline."""
    queue: int = 1024
    """Most calls of one model waiting in a worker; more are answered 503."""
    engine_threads: int = 1
    """Threads inside one engine call (ONNX Runtime intra-op)."""
    default_model: str = ""
    """The model that answers on paths that name none (/invocations); empty means the only one there is."""
    load: Literal["start", "lazy"] = "start"
    """`start` loads what takes traffic before the server is ready; `lazy` loads a model when it is first asked for."""
    memory_bytes: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Most bytes of loaded models in each worker; the least recently used go when more are needed. 0: no limit."""
    load_seconds: Annotated[float, msgspec.Meta(gt=0)] = 120.0
    """How long a request without a deadline waits for its model to be loaded."""
    drain_seconds: float = 20.0
    """How long a stopping server waits for the requests it has begun."""
    unready_seconds: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    """How long a stopping server still takes requests while it says that it is not ready, for load balancers that
    ask. Part of `drain_seconds`."""
    errors: str = "full"
    """`full` names fields and reasons; `safe` gives only code and request id."""

    @property
    def listening_grpc_port(self) -> int:
        """`grpc_port`, or what it is when it was not set."""
        if self.grpc_port is None:
            return 8081 if self.port else 0
        return self.grpc_port


class LogSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The prediction log, and the labels beside it."""

    enabled: bool = True
    """Whether predictions are recorded."""
    sample: Annotated[float, msgspec.Meta(ge=0, le=1)] = 1.0
    """Share of the requests that is recorded; which ones is decided by their ids."""
    durable: bool = False
    """Every prediction is on the disk before its answer goes out."""
    flush_seconds: Annotated[float, msgspec.Meta(gt=0)] = 0.2
    """What a killed worker loses at most."""
    queue_rows: int = 50_000
    """Rows waiting to be written; more are dropped and counted."""
    queue_bytes: int = 8 * 1024 * 1024
    """Most bytes of them."""
    bytes_per_second: Annotated[int, msgspec.Meta(ge=0)] = 8 * 1024 * 1024
    """Most inputs and outputs that a worker records in a second; requests beyond are passed over whole, and counted. More
    would only push older rows out of `disk_bytes` within minutes, and cost serving a quarter of its speed. 0: no limit."""
    segment_bytes: int = 32 * 1024 * 1024
    """A segment that is larger is closed."""
    segment_seconds: Annotated[float, msgspec.Meta(gt=0)] = 300.0
    """A segment that is older is closed, so that it can be compacted."""
    disk_bytes: int = 2 * 1024 * 1024 * 1024
    """Most bytes of segments per model and machine; the oldest go first."""
    folder: str = ""
    """Where this machine's servers append segments; empty means `<home>/log`."""
    archive_url: str = ""
    """Where segments are compacted to, as Parquet: a folder or an fsspec URL; empty means `<home>/archive`."""
    archive_options: dict[str, Any] = {}
    """Options of the fsspec filesystem behind `archive_url`, such as `endpoint_url`."""
    compact_bytes: int = 64 * 1024 * 1024
    """Segments of a version are compacted when they have so many bytes,"""
    compact_seconds: float = 3600.0
    """or when the oldest is so old."""
    keep_days: Annotated[float, msgspec.Meta(gt=0)] = 90.0
    """How long predictions and labels are kept in the archive."""
    archive_bytes: int = 20 * 1024**3
    """Most bytes of Parquet per model; the oldest days go first."""
    secret_file: str = ""
    """The key that private fields are hashed and tokenised with; empty means `<home>/log.secret`, made when it is
    needed. Machines that share an archive share this file."""
    key_privacy: Literal["keep", "drop", "hash", "token"] = "keep"
    """What happens to the routing key of a request before it is written."""
    label_days: Annotated[float, msgspec.Meta(gt=0)] = 90.0
    """How long a label waits for its prediction."""
    label_bytes: int = 1024**3
    """Most bytes of labels not compacted yet, per model and machine; further feedback is refused."""
    label_queue: int = 100_000
    """Most labels of small requests waiting to be written in a worker; more are answered 503."""

    def folder_at(self, home: str) -> str:
        return self.folder or f"{home}/log"

    def archive_at(self, home: str) -> str:
        return self.archive_url or f"{home}/archive"

    def secret_at(self, home: str) -> str:
        return self.secret_file or f"{home}/log.secret"


class CacheSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Answers kept for requests that come again. What a model's own settings leave open."""

    max_bytes: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Most bytes of requests and answers kept per model and worker; 0 keeps none."""
    ttl_seconds: Annotated[float, msgspec.Meta(ge=0)] = 60.0
    """How long an answer is kept."""


class BatchingSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Merging of calls that wait at the same time into one engine call."""

    mode: Literal["auto", "always", "off"] = "auto"
    """`auto` merges where every answer stays the same to the last bit and the merged call costs less; `always` also
    where the last bits may differ."""
    rows: Annotated[int, msgspec.Meta(ge=1)] = 1024
    """Most rows of a merged call."""


class HybridSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Answers computed ahead by `fairway precompute`. Which models use them is said in `[models.NAME]`."""

    store: str = ""
    """Where they are: `lmdb:///folder`, `redis://host:port/db`; empty means `<home>/answers`."""
    ttl_seconds: Annotated[float, msgspec.Meta(ge=0)] = 86_400.0
    """How long an answer is fresh, unless it is written with another time (`--ttl`); 0: for ever."""
    timeout_seconds: Annotated[float, msgspec.Meta(gt=0)] = 0.25
    """Longest that one look-up may take in a store on another machine."""
    retry_seconds: Annotated[float, msgspec.Meta(ge=0)] = 1.0
    """How long a store that was away is not asked again."""
    entry_bytes: Annotated[int, msgspec.Meta(gt=0)] = 64 * 1024
    """Largest answer of one row that is kept; a row with a larger one is rejected while precomputing."""
    store_bytes: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Most bytes of keys and answers that one run writes; 0: no limit."""


class ModelSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one model has its own way, as `[models.NAME]`; None leaves it to the group that says it for all."""

    cache_bytes: Annotated[int, msgspec.Meta(ge=0)] | None = None
    """As `cache.max_bytes`."""
    cache_seconds: Annotated[float, msgspec.Meta(ge=0)] | None = None
    """As `cache.ttl_seconds`."""
    batching: Literal["auto", "always", "off"] | None = None
    """As `batching.mode`."""
    batch_rows: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """As `batching.rows`."""
    queue: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """As `serving.queue`."""
    threads: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """Most engine calls of this model at once, in one worker; None: one for each core of the worker."""
    pinned: bool = False
    """Loaded at the start and never unloaded to make room."""
    log_sample: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    """As `log.sample`."""
    hybrid_key: str = ""
    """What a request calls the key that its precomputed answer is found by; empty: this model has no such answers."""
    hybrid_store: str | None = None
    """As `hybrid.store`."""
    hybrid_prefer: Literal["store", "live"] = "store"
    """`live` runs the model whenever the features are there; the store then answers only when they are not, or under
    overload."""
    hybrid_missing: Literal["refuse", "stale", "default"] = "refuse"
    """What a request without features gets when its answer is not fresh: 404; a stale answer, else 404; or a stale
    answer, else `hybrid_default`."""
    hybrid_overload: Literal["refuse", "fresh", "stale", "default"] = "refuse"
    """What a request gets instead of 503: nothing else; a fresh answer; or also a stale one; or also the default."""
    hybrid_stale_seconds: Annotated[float, msgspec.Meta(ge=0)] = 604_800.0
    """Oldest answer that is still given as a stale one, from when it was computed."""
    hybrid_default: dict[str, Any] | None = None
    """The default answer: a value for every output."""
    reference: str = ""
    """What traffic is compared with: empty for what the bundle has; `2026-11-01/2026-11-08` for the version's own
    predictions in that time."""
    slices: tuple[str, ...] = ()
    """Fields whose values are groups of rows that performance is told of one by one."""
    protected: tuple[str, ...] = ()
    """Fields by whose values people must not be treated differently: parity between these groups is watched."""
    query: str = ""
    """Of a model that ranks: the field whose values tell which rows are one list, or `request_id` where a request is one, as it
    is after `fairway deploy --query`. Labels are then relevances, and NDCG and MAP are watched."""
    business_value: tuple[tuple[float, ...], ...] = ()
    """What an outcome is worth: a row for each actual class, a column for each predicted one."""


class AccessSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who may call, beyond what the registry's keys say."""

    open_admin: bool = False
    """The admin API answers without a key while there are no keys: for containers in which a platform
    (SageMaker) is the only caller."""


class TlsSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """TLS of the HTTP and the gRPC port alike. Files are PEM; a file that changes is read again."""

    certificate: str = ""
    """File of the server's certificate, the intermediate ones after it; empty means no TLS."""
    key: str = ""
    """File of its private key, not encrypted; empty means it stands in the file of the certificate."""
    client_ca: str = ""
    """File of the authorities whose client certificates are let in; with one, a client must show a certificate."""
    minimum_version: Literal["1.2", "1.3"] = "1.2"
    """The oldest TLS that is spoken."""
    client_names: Literal["", "key"] = ""
    """`key`: a client certificate stands for the API key that its subject's common name names."""
    poll_seconds: Annotated[float, msgspec.Meta(gt=0)] = 1.0
    """How often the files are looked at for a change."""


class IsolationSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Python models that run in environments and processes of their own."""

    folder: str = ""
    """Where the environments are kept; empty means `<home>/environments`."""
    environments: int = 20
    """Most environments kept; the least recently used goes first, one in use never."""
    disk_bytes: int = 20 * 1024**3
    """Most bytes of all environments together."""
    build: bool = True
    """Whether loading a model may make its environment; when false it must have been made before."""
    build_seconds: float = 900.0
    """Longest that resolving or making an environment may take."""
    installer: str = "auto"
    """`pip`, `uv`, or `auto`: pip where the interpreter has it, else uv."""
    processes: int = 1
    """Processes of each model in each worker."""
    queue: int = 64
    """Most calls waiting for a process; more are answered 503."""
    call_seconds: float = 30.0
    """Longest that one call may take; then the process is killed."""
    start_seconds: float = 120.0
    """Longest that a process may take until it is ready."""
    buffer_bytes: int = 256 * 1024 * 1024
    """Most shared memory for the rows of one call, and as much for its answers."""
    memory_bytes: int = 0
    """Address space of a process (RLIMIT_AS); 0 sets no limit."""


class TelemetrySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    log_format: Literal["text", "json"] = "text"
    """`json` writes one JSON object a line."""
    log_level: Literal["debug", "info", "warning", "error"] = "warning"
    """`info` also logs requests that were the caller's own mistake."""
    log_values: bool = False
    """Lets logs of failed requests quote what was sent: values, and a model's own error messages."""
    otlp_endpoint: str = ""
    """OTLP over HTTP, such as `http://127.0.0.1:4318`; empty means no traces. Needs the extra `otel`."""
    otlp_headers: dict[str, str] = {}
    """Sent with every export, such as a collector's key."""
    trace_rate: float = 0.0
    """Share of the requests without a `traceparent` that is traced, 0 to 1; with one, its flag decides."""
    trace_queue: int = 2048
    """Most requests whose traces wait to be exported; more are dropped and counted."""
    service_name: str = "fairway"
    """`service.name` of the traces."""


class SagemakerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `GET /execution-parameters` tells SageMaker's batch transform."""

    max_concurrent_transforms: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Requests it sends at once; 0: one for each worker."""
    batch_strategy: Literal["MULTI_RECORD", "SINGLE_RECORD"] = "MULTI_RECORD"
    """Whether a request has as many rows as fit, or one."""
    max_payload_mb: Annotated[int, msgspec.Meta(ge=0, le=100)] = 0
    """Most megabytes of a request; 0: what `limits.body_bytes` allows, up to SageMaker's own limit of 100."""


class VertexSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Paths that Vertex AI chooses, as its environment variables AIP_HEALTH_ROUTE, AIP_PREDICT_ROUTE and
    AIP_DEPLOYED_MODEL_ID give them."""

    health_route: str = ""
    """Answers 200 when the server is ready; empty: no further path."""
    predict_route: str = ""
    """Takes predictions as /invocations does; empty: no further path."""
    deployed_model_id: str = ""
    """Told with every answer of `predict_route`, when there is one."""


class BatchSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    storage: dict[str, dict[str, Any]] = {}
    """Options of the fsspec filesystems that inputs and outputs are on, by protocol: `[batch.storage.s3]`,
    `endpoint_url = "..."`."""
    keep_runs: Annotated[int, msgspec.Meta(ge=1)] = 500
    """Runs that are remembered; the oldest that have ended go when another begins."""
    spark_master: str = ""
    """Where `--engine spark` runs: `spark://host:7077`, `yarn`, `k8s://...`, `local[4]`, or `sc://host` for Spark Connect.
    Empty: what `spark-submit`, `SPARK_REMOTE` or `spark-defaults.conf` say, else all cores of this machine."""
    spark: dict[str, str] = {}
    """Spark's own settings, `[batch.spark]`, `"spark.executor.memory" = "2g"`."""
    ray_address: str = ""
    """Where `--engine ray` runs: `host:6379`, `ray://host:10001`, `auto`. Empty: what `RAY_ADDRESS` says, else this machine."""


class ControlSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The control process: schedules, pages, the admin API."""

    enabled: bool = True
    """Whether `fairway serve` starts one beside the workers."""
    host: str = "127.0.0.1"
    """Elsewhere than on loopback only with keys, best with TLS, or with --insecure."""
    port: int = 8090
    """0: a free one."""
    lease_seconds: Annotated[float, msgspec.Meta(ge=1, le=300)] = 8.0
    """Of several control processes on one database one leads; how long after its death another begins to."""
    interval_seconds: Annotated[float, msgspec.Meta(ge=0.05, le=60)] = 1.0
    """How often it is looked whether a schedule is due."""
    processes: Annotated[int, msgspec.Meta(ge=1, le=64)] = 2
    """Most runs of schedules at once; more wait."""
    history_runs: Annotated[int, msgspec.Meta(ge=10)] = 1000
    """Ended runs that are kept of each schedule."""
    stop_seconds: Annotated[float, msgspec.Meta(ge=0)] = 10.0
    """How long a stopping control process waits for its runs to end where they can go on."""
    session_seconds: Annotated[float, msgspec.Meta(gt=0)] = 43_200.0
    """How long somebody who has logged in stays so."""
    session_key: str = ""
    """What sessions are signed with, 16 characters or more, the same where several control processes stand behind one
    name; empty means one of its own, kept in `<home>/control.key`."""
    body_bytes: Annotated[int, msgspec.Meta(gt=0)] = 1024 * 1024
    """Largest request body."""
    memory_bytes: Annotated[int, msgspec.Meta(ge=0)] = 4 * 1024**3
    """Most memory of the control process itself, what its libraries reserve included (RLIMIT_DATA); its runs have
    their own. 0 sets no limit."""
    nice: Annotated[int, msgspec.Meta(ge=0, le=19)] = 10
    """How far it, and what it runs, gives way to serving."""


class ScheduleSettings(BatchOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One `[[schedules]]`: `fairway batch run` with `input` and `output`, or `fairway precompute` with `files` and `key`,
    again and again. The options have the names that they have there."""

    name: str
    """What it is called."""
    cron: str
    """Five fields, or six with seconds first."""
    model: str
    """A registered model, a version or an alias."""
    time_zone: str = "UTC"
    """Whose clocks `cron` is read on, such as Europe/Berlin."""
    allow_overlap: bool = False
    """Begin a run also while one before it goes on."""
    retries: int = 3
    """How often a failed run is tried again."""
    retry_seconds: float = 60.0
    """How long before the first retry; then twice as long each time."""
    input: str = ""
    """What is scored: a file, a folder, a pattern, an address or a table; may hold placeholders such as {date}."""
    output: str = ""
    """Where answers go; may hold placeholders."""
    files: str = ""
    """What answers are computed ahead for; may hold placeholders."""
    key: str = ""
    """The column that answers are stored under."""
    store: str | None = None
    """Where answers are stored, instead of `hybrid.store`."""
    ttl_seconds: float | None = None
    """How long answers are fresh, instead of `hybrid.ttl_seconds`."""
    allow_empty: bool = False
    """Publish also when there is not one answer."""


class DriftSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[drift]`. The defaults need no tuning."""

    alpha: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.03
    """Most often that a window without drift raises any alarm at all, over all its columns together."""
    min_rows: Annotated[int, msgspec.Meta(ge=2)] = 30
    """A current window with fewer rows is not judged."""
    min_reference_rows: Annotated[int, msgspec.Meta(ge=2)] = 50
    """A reference with fewer rows judges nothing."""
    spread_floor: Annotated[float, msgspec.Meta(ge=0)] = 0.05
    """Drift smaller than this Wasserstein distance, in standard deviations of the reference, is no alarm, unless
    another floor is passed."""
    share_floor: Annotated[float, msgspec.Meta(ge=0)] = 0.025
    """The same for the share of rows that lie elsewhere (Kolmogorov-Smirnov, total variation), and for correlations."""
    rate_floor: Annotated[float, msgspec.Meta(ge=0)] = 0.005
    """The same for the share of rows that are missing, infinite, of new categories or in the reference's tails."""
    multivariate: bool = True
    """Whether drift that no single column shows is looked for."""
    resamples: Annotated[int, msgspec.Meta(ge=200, le=100_000)] = 2000
    """Draws of a window without drift that the alarms are calibrated on."""
    sample_rows: Annotated[int, msgspec.Meta(ge=500, le=1_000_000)] = 5_000
    """Most rows of each side that are held together in memory: for calibration, dependence between columns, texts
    and tensors. All rows count in every other test."""
    seed: int = 0
    """Of every draw: the same windows give the same report."""


class QualitySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[quality]`: when a window's data is not as it should be."""

    alpha: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.01
    """Most often that a window in which nothing is wrong raises any finding about rates."""
    rate_floor: Annotated[float, msgspec.Meta(ge=0)] = 0.005
    """A smaller rise of a share of rows (missing, infinite, outside, unknown, in breach of the contract) is passed over."""
    min_rows: Annotated[int, msgspec.Meta(ge=1)] = 30
    """A window with fewer rows is judged by its freshness and volume alone."""
    stale_seconds: Annotated[float, msgspec.Meta(ge=0)] = 3600.0
    """The last row may be so old; 0: any age."""
    volume_windows: Annotated[int, msgspec.Meta(ge=2)] = 5
    """Volumes are judged once there are so many earlier windows."""
    volume_deviations: Annotated[float, msgspec.Meta(gt=0)] = 6.0
    """How many robust standard deviations a window's rows may be from their median."""
    volume_floor: Annotated[float, msgspec.Meta(ge=0)] = 0.5
    """A smaller part more or less than usual is passed over."""


class MonitoringSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The monitor, which looks at every window of every version in the log."""

    enabled: bool = True
    """Whether the control process that leads watches the log."""
    interval_seconds: Annotated[float, msgspec.Meta(ge=0.1)] = 30.0
    """How often it is looked whether a window is over."""
    window_seconds: Annotated[float, msgspec.Meta(ge=1, le=86_400)] = 3600.0
    """Windows begin at multiples of it, UTC."""
    min_rows: Annotated[int, msgspec.Meta(ge=1)] = 100
    """A window with fewer rows goes on until the next one's end,"""
    longest_seconds: Annotated[float, msgspec.Meta(ge=1)] = 86_400.0
    """but not longer than this."""
    grace_seconds: Annotated[float, msgspec.Meta(ge=0)] = 5.0
    """How long after its end a window is looked at: workers write a little later."""
    look_back_days: Annotated[float, msgspec.Meta(gt=0)] = 7.0
    """How much of the log a monitor that begins, or was away, looks at."""
    sample_rows: Annotated[int, msgspec.Meta(ge=1000)] = 200_000
    """Most rows of a window that are held in memory."""
    sketch_rows: Annotated[int, msgspec.Meta(ge=1000)] = 2_000_000
    """After a window with more rows than this, so large a share of the next one's goes into its sketches."""
    drift_windows: Annotated[int, msgspec.Meta(ge=1, le=3)] = 2
    """In how many of three windows in a row a column must drift before an incident hears of it."""
    min_labels: Annotated[int, msgspec.Meta(ge=1)] = 50
    """A window with fewer labels is not judged by them,"""
    min_class_labels: Annotated[int, msgspec.Meta(ge=0)] = 5
    """nor one with fewer of any class: a metric of two frauds says nothing."""
    keep_days: Annotated[float, msgspec.Meta(gt=0)] = 400.0
    """How long what was seen is kept."""
    memory_bytes: Annotated[int, msgspec.Meta(ge=0)] = 2 * 1024**3
    """Most memory of the monitor's process (RLIMIT_DATA). 0 sets no limit."""


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    home: str = ""
    registry: RegistrySettings = RegistrySettings()
    limits: LimitSettings = LimitSettings()
    serving: ServingSettings = ServingSettings()
    log: LogSettings = LogSettings()
    monitoring: MonitoringSettings = MonitoringSettings()
    cache: CacheSettings = CacheSettings()
    batching: BatchingSettings = BatchingSettings()
    access: AccessSettings = AccessSettings()
    tls: TlsSettings = TlsSettings()
    hybrid: HybridSettings = HybridSettings()
    models: dict[str, ModelSettings] = {}
    """By model name."""
    isolation: IsolationSettings = IsolationSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    sagemaker: SagemakerSettings = SagemakerSettings()
    vertex: VertexSettings = VertexSettings()
    batch: BatchSettings = BatchSettings()
    control: ControlSettings = ControlSettings()
    schedules: tuple[ScheduleSettings, ...] = ()
    alerts: AlertSettings = AlertSettings()
    drift: DriftSettings = DriftSettings()
    quality: QualitySettings = QualitySettings()

    def isolation_at_home(self) -> IsolationSettings:
        """`isolation` with its folder, below the home where none is set."""
        if self.isolation.folder:
            return self.isolation
        return msgspec.structs.replace(self.isolation, folder=f"{self.home}/environments")
