"""The settings of a server: the fields of one model, each with its type, default and description.

The options of the command line, the environment variables, the keys of the file and the table in
docs/configuration.md are generated from these fields. An invalid value raises one error that names
the option. Must not depend on the sources of values (sources.py), and does not read files or
connect to a database.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo

from tollwire.loopback import is_loopback
from tollwire.service.settings.cores import available_cores
from tollwire.service.settings.parsing import (
    DEFAULT_LISTEN,
    SQLITE_FILE,
    ConfigError,
    Listen,
    as_text,
    check_database,
    check_session_database,
    parse_listen,
)

DEFAULT_DATABASE = "sqlite:///tollwire.db"
DEFAULT_MAX_CONNECTIONS = 1_000
DEFAULT_MAX_STREAMS = 32
DEFAULT_MAX_TENANT_RATES = 5_000_000
DEFAULT_MAX_DECK_BYTES = 2 * 1024**3
# Far more than a worker runs at one time; it finishes this number in a tenth of a second.
DEFAULT_MAX_RPCS = 256
DEFAULT_MAX_REQUEST_BYTES_IN_WORK = 256 * 1024 * 1024
DEFAULT_DATABASE_WAIT_SECONDS = 10.0
DEFAULT_STREAM_WAIT_SECONDS = 300.0


def _listen(value: Any) -> Any:
    return value if isinstance(value, Listen) else parse_listen(str(value))


def _metrics_listen(value: Any) -> Any:
    if value in ("", None) or isinstance(value, Listen):
        return value or None
    return parse_listen(str(value), "--metrics-listen")


# The value of a number that the server chooses.
AUTO = "auto"
MAX_WORKERS = 256  # far more than a machine has cores


def _nothing_for_empty(value: Any) -> Any:
    return None if value == "" else value


def _number_of_workers(value: Any, given: ValidationInfo) -> Any:
    if value != AUTO:
        return value
    # On SQLite the workers take turns to write: docs/architecture/decisions/processes-not-threads.
    if str(given.data.get("database", "")).startswith("sqlite"):
        return 1
    return min(available_cores(), MAX_WORKERS)


def _health_listen(value: Any) -> Any:
    if value in ("", None) or isinstance(value, Listen):
        return value or None
    return parse_listen(str(value), "--health-listen")


def _half_of_connections(value: Any, given: ValidationInfo) -> Any:
    if value != AUTO:
        return value
    return max(1, given.data.get("max_connections", DEFAULT_MAX_CONNECTIONS) // 2)


def _upper(value: Any) -> Any:
    return value.upper() if isinstance(value, str) else value


_File = Annotated[Path | None, BeforeValidator(_nothing_for_empty)]
_AsText = PlainSerializer(lambda value: "" if value is None else str(value), return_type=str)


class Settings(BaseModel):
    """The settings of ``tollwire serve``. The constructor raises ConfigError if a value is invalid.

    It uses only its arguments and the defaults. A worker process creates the same settings from
    ``model_dump(mode="json")``.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, validate_default=False
    )

    listen: Annotated[Listen, BeforeValidator(_listen), _AsText] = Field(
        DEFAULT_LISTEN,
        description="The address to listen on; port 0: any free port. The default accepts"
        " connections from this machine only.",
    )
    database: Annotated[str, AfterValidator(check_database)] = Field(
        DEFAULT_DATABASE,
        description="sqlite:///FILE or postgresql+psycopg://USER:PASSWORD@HOST/NAME. A file is"
        " created if it does not exist; several machines need PostgreSQL.",
    )
    session_database: Annotated[
        str | None, BeforeValidator(_nothing_for_empty), AfterValidator(check_session_database)
    ] = Field(
        None,
        description="A second, direct URL of the same PostgreSQL database, for notifications"
        " (LISTEN) and migrations. Use it if --database is the URL of a connection pooler such as"
        " PgBouncer in transaction mode. Without it, workers behind a pooler poll for changes.",
    )
    workers: Annotated[int, BeforeValidator(_number_of_workers)] = Field(
        AUTO,
        ge=1,
        le=MAX_WORKERS,
        validate_default=True,
        description="The number of processes that share the port and one copy of all rates. A"
        " process uses little more than one core. auto: with PostgreSQL one for each core that the"
        " server may use (affinity, and the processor limit of its container); with SQLite one,"
        " because several workers take turns to write.",
    )
    transport: Literal["grpcio", "native"] = Field(
        "grpcio",
        description="The server's HTTP/2. native needs tollwire[native] and takes less processor"
        " time for unary requests; streaming requests still use grpcio. It accepts connections"
        " from this machine only, and has no TLS and no"
        " --max-connection-age-seconds. It cannot limit the memory of an unfinished request: a"
        " worker that grows by twice --max-request-bytes-in-work closes all its connections, and"
        " one that grows by four times as much ends and is replaced.",
    )
    access: Literal["auto", "open", "tokens"] = Field(
        "auto",
        description="Access control: tokens requires a token with every request; open allows"
        " everything without a token. auto is open on a loopback address without TLS until the"
        " first token is created, and tokens everywhere else. Set tokens if anything forwards"
        " other machines' connections to this address: a proxy, a tunnel, a sidecar.",
    )
    insecure: bool = Field(
        False,
        description="Allow plain text, and --access open, on an address that other machines can"
        " reach. For networks that are protected in another way.",
    )
    tls_cert_file: _File = Field(
        None,
        description="The certificate of the server, followed by the intermediate certificates, PEM."
        " The server reads it again when it changes.",
    )
    tls_key_file: _File = Field(None, description="The certificate's private key, PEM.")
    tls_client_ca_file: _File = Field(
        None,
        description="The certificate authorities of client certificates, PEM: mutual TLS, in which"
        " every client needs a certificate. None: clients need no certificate.",
    )
    ledger_key_file: _File = Field(
        None,
        description="An Ed25519 private key, PEM, with which the server signs each entry of the"
        " ledger. Keep it outside the database and its backups: without it nobody can add an entry"
        " that tollwire ledger verify --public-key accepts. Every server of the database needs it."
        " None: entries are not signed.",
    )
    max_connections: int = Field(
        DEFAULT_MAX_CONNECTIONS,
        ge=1,
        le=1_000_000,
        description="The number of simultaneous connections of a worker. Each needs a file"
        " descriptor; the server raises its limit as far as the system allows.",
    )
    max_connections_per_address: Annotated[int, BeforeValidator(_half_of_connections)] = Field(
        AUTO,
        ge=1,
        le=1_000_000,
        validate_default=True,
        description="The number of simultaneous connections of a worker from one address (of IPv6,"
        " from one network of 64 bits). Connections without an RPC of an identified caller are"
        " closed first. Raise it if a proxy or a load balancer connects for all clients. auto: half"
        " of --max-connections.",
    )
    health_listen: Annotated[Listen | None, BeforeValidator(_health_listen), _AsText] = Field(
        None,
        description="A second address, HOST:PORT, that answers health checks (grpc.health.v1) only,"
        " in plain text and without tokens, with threads and connections of its own: clients of"
        " --listen cannot keep its probes out. None: health is answered on --listen only.",
    )
    max_rpcs: int = Field(
        DEFAULT_MAX_RPCS,
        ge=1,
        le=100_000,
        description="The number of simultaneous requests of a worker, without streams. The limit"
        " applies to RateCall, to BatchRateCalls and to all other methods separately. Requests"
        " above it are refused at once.",
    )
    max_streams: int = Field(
        DEFAULT_MAX_STREAMS,
        ge=1,
        le=4096,  # far more threads than a process should have
        description="The number of simultaneous streaming requests of a worker. Each occupies a"
        " thread until it ends. The limit applies to StreamRateCalls, to uploads and imports, and"
        " to exports and other streams of responses separately.",
    )
    stream_wait_seconds: float = Field(
        DEFAULT_STREAM_WAIT_SECONDS,
        ge=1,
        le=86_400,
        description="The time that a stream waits for its client: for the next request (then it"
        " ends with UNAVAILABLE, STREAM_IDLE), or until a response is read (then it ends with"
        " RESOURCE_EXHAUSTED, RESPONSE_NOT_READ). A stream that waits keeps its slot.",
    )
    max_request_bytes_in_work: int = Field(
        DEFAULT_MAX_REQUEST_BYTES_IN_WORK,
        ge=32 * 1024 * 1024,  # one message of the largest size
        le=1 << 40,
        description="The total bytes of request messages that a worker processes at one time. A"
        " worker holds them several times: when it has grown by twice this limit, it ends requests"
        " whose messages have not arrived. A message of a stream counts once it has arrived.",
    )
    max_tenant_rates: int = Field(
        DEFAULT_MAX_TENANT_RATES,
        ge=1,
        le=100_000_000,
        description="The number of rates that a tenant may have. Changes that would pass it are"
        " refused; rates that exist stay.",
    )
    max_deck_bytes: int = Field(
        DEFAULT_MAX_DECK_BYTES,
        ge=1024 * 1024,
        le=1 << 40,
        description="The memory of the rates of all tenants, which the workers share. Changes that"
        " could pass it are refused, and a server whose rates take more does not start. While a"
        " deck changes, the old and the new one are in memory.",
    )
    tenant_share: float = Field(
        0.5,
        gt=0,
        le=1,
        description="The part of --max-rpcs and --max-streams that one customer may use while no"
        " other uses any; beside others it gets less, so that slots stay free for further ones. All"
        " tokens for the same tenants are one customer; a token for all tenants is one of its own."
        " 1: all. Without tokens, callers are not distinguished, and the limit does not apply.",
    )
    max_connection_age_seconds: float = Field(
        0.0,
        ge=0,
        le=31_536_000,
        description="The longest duration of a connection, after which the client opens a new one;"
        " 0: no limit. A load balancer reaches new servers by new connections only.",
    )
    grace_seconds: float = Field(
        20.0,
        ge=0,
        le=3600,
        description="The time that requests in progress get after SIGTERM. Most supervisors kill a"
        " process after 30 seconds.",
    )
    database_wait_seconds: float = Field(
        DEFAULT_DATABASE_WAIT_SECONDS,
        ge=0.5,
        le=200,
        description="The time that requests wait for the database before they fail. Longer than a"
        " commit takes on a busy disk, and shorter than the deadline of clients.",
    )
    database_start_wait_seconds: float = Field(
        300.0,
        ge=0,
        le=31_536_000,
        description="The time that a server waits at its start for a database that does not answer;"
        " 0: no limit. A wrong password or a database that does not exist ends the start at once.",
    )
    failure_retention_days: int = Field(
        0,
        ge=0,
        le=36_500,
        description="The days that failed records of uploads are kept; 0: no limit. They contain"
        " telephone numbers.",
    )
    metrics_listen: Annotated[Listen | None, BeforeValidator(_metrics_listen), _AsText] = Field(
        None,
        description="The address of the Prometheus metrics of all workers, HOST:PORT. None: no"
        " metrics. They need no token.",
    )
    backup_record_file: _File = Field(
        None,
        description="A file whose modification time is the end of the last backup: tollwire backup"
        " writes it, and the metrics show it. None: FILE.last-backup beside an SQLite database; no"
        " such metric with PostgreSQL.",
    )
    log_level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(_upper)] = (
        Field("INFO", description="The lowest level in the log on stderr. DEBUG logs each request.")
    )
    log_format: Literal["console", "json"] = Field(
        "console",
        description="console: lines for people; json: one JSON object a line for log collectors.",
    )
    log_full_numbers: bool = Field(
        False,
        description="Log telephone numbers in full. They are personal data, and masked by default.",
    )
    traces: bool = Field(
        False,
        description="Send OpenTelemetry traces to the endpoint of the OTEL_* variables. Needs"
        " tollwire[otel].",
    )

    def __init__(self, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise _in_one_sentence(error) from None

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_bool_for_number(cls, value: Any, info: Any) -> Any:
        # Pydantic would accept true as 1.
        if isinstance(value, bool) and cls.model_fields[info.field_name].annotation is not bool:
            raise ValueError
        return value

    @model_validator(mode="after")
    def _check_session_database_backend(self) -> Self:
        if self.session_database is not None and self.database.startswith("sqlite"):
            raise ConfigError("--session-database: can be used only if --database is PostgreSQL")
        return self

    @model_validator(mode="after")
    def _check_native_transport_can_do_it(self) -> Self:
        if self.transport == "grpcio":
            return self
        if not is_loopback(self.listen.host):
            raise ConfigError(
                f"--transport: native cannot limit the memory of requests, and other machines can"
                f" reach {self.listen}; listen on a loopback address, or use grpcio"
            )
        for option, is_set in (
            ("--tls-cert-file", self.tls_cert_file is not None),
            ("--tls-key-file", self.tls_key_file is not None),
            ("--tls-client-ca-file", self.tls_client_ca_file is not None),
            ("--max-connection-age-seconds", self.max_connection_age_seconds != 0),
        ):
            if is_set:
                raise ConfigError(f"--transport: native does not support {option}; use grpcio")
        return self

    @model_validator(mode="after")
    def _check_tls_files_are_complete(self) -> Self:
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            lone, missing = "--tls-cert-file", "--tls-key-file"
            if self.tls_cert_file is None:
                lone, missing = missing, lone
            raise ConfigError(f"{lone}: needs {missing} too")
        if self.tls_client_ca_file is not None and self.tls_cert_file is None:
            raise ConfigError("--tls-client-ca-file: needs --tls-cert-file and --tls-key-file too")
        return self

    @model_validator(mode="after")
    def _check_remote_access_is_protected(self) -> Self:
        if self.insecure or is_loopback(self.listen.host):
            return self
        if not self.uses_tls:
            raise ConfigError(
                f"--listen: other machines can reach {self.listen}, and their requests would be in"
                " plain text; give --tls-cert-file and --tls-key-file, or --insecure if the network"
                " is protected in another way"
            )
        if self.access == "open":
            raise ConfigError(
                f"--access: open allows everything to every machine that can reach {self.listen};"
                " use tokens, or give --insecure if the network is protected in another way"
            )
        return self

    @property
    def backup_record(self) -> Path | None:
        """The file that records backups; None if backups are not recorded."""
        if self.backup_record_file is not None:
            return self.backup_record_file
        match = SQLITE_FILE.fullmatch(self.database)
        if match is None or match["file"].startswith("file:"):
            return None
        return Path(f"{match['file']}.last-backup")

    @property
    def uses_tls(self) -> bool:
        return self.tls_cert_file is not None

    @property
    def may_be_open(self) -> bool:
        """Whether callers without a token may call every RPC; with the access auto, only until the
        first token is created."""
        if self.access == "auto":
            return is_loopback(self.listen.host) and not self.uses_tls
        return self.access == "open"


@dataclass(frozen=True, slots=True)
class Option:
    """A field of Settings as users see it. ``kind`` completes the sentence "must be …"."""

    field: str
    kind: str
    default: str
    description: str
    choices: tuple[str, ...] = ()
    is_switch: bool = False

    @property
    def flag(self) -> str:
        return "--" + self.field.replace("_", "-")

    @property
    def variable(self) -> str:
        return f"TOLLWIRE_{self.field.upper()}"


def _option(name: str, field: FieldInfo) -> Option:
    choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
    return Option(
        name,
        _kind(field, choices),
        as_text(field.default),
        field.description or "",
        choices,
        field.annotation is bool,
    )


def _kind(field: FieldInfo, choices: tuple[str, ...]) -> str:
    if choices:
        return f"one of {', '.join(choices)}"
    if field.annotation is bool:
        return "true or false"
    if field.default == AUTO:
        return f"{AUTO}, or {_number(field)}"
    if field.annotation in (int, float):
        return _number(field)
    if field.annotation in (Listen, Listen | None):
        return "HOST:PORT"
    return "a path" if field.annotation == (Path | None) else "a text"


def _number(field: FieldInfo) -> str:
    noun = "a whole number" if field.annotation is int else "a number"
    low, above = _bound(field, "ge"), _bound(field, "gt")
    start = f"above {above:,} and up" if low is None else f"from {low:,}"
    return f"{noun} {start} to {_bound(field, 'le'):,}"


def _bound(field: FieldInfo, name: str) -> Any:
    return next((getattr(m, name) for m in field.metadata if hasattr(m, name)), None)


OPTIONS: Mapping[str, Option] = {
    name: _option(name, field) for name, field in Settings.model_fields.items()
}


def _in_one_sentence(error: ValidationError) -> ConfigError:
    """The first violation, as one sentence."""
    first = error.errors(include_url=False)[0]
    field = str(first["loc"][0]) if first["loc"] else ""
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, ConfigError):
        return ConfigError(str(cause), field)
    option = OPTIONS.get(field)
    if option is None:
        return ConfigError(f"{field}: there is no such setting", field)
    given = first["input"]
    shown = as_text(given) if isinstance(given, (bool, int, float)) else repr(given)
    return ConfigError(f"{option.flag}: must be {option.kind}, got {shown}", field)
