"""The settings of a server, validated.

Knows nothing of command lines or of the environment (service/cli reads those), nor whether a
database answers: it only refuses what cannot work, in one sentence that names the option.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import urlsplit

LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
DEFAULT_DATABASE = "sqlite:///tollwire.db"
DEFAULT_MAX_STREAMS = 32
# Far more than a worker does at one time, and what it does in a tenth of a second.
DEFAULT_MAX_RPCS = 256
DEFAULT_MAX_REQUEST_BYTES_IN_WORK = 256 * 1024 * 1024
DEFAULT_GRACE_SECONDS = 20.0
# Long for a commit or a look-up, even on a disk that is busy; short for a client's patience.
DEFAULT_DATABASE_WAIT_SECONDS = 10.0

# Far more than a machine has cores, and than a process should have threads.
MAX_WORKERS = 256
MAX_MAX_STREAMS = 4096
MAX_GRACE_SECONDS = 3600.0
MAX_FAILURE_RETENTION_DAYS = 36_500
MAX_DATABASE_WAIT_SECONDS = 200.0

_LISTEN = re.compile(
    r"(?: \[ (?P<ipv6> [0-9A-Fa-f:.]+ (?: %\w+ )? ) \] | (?P<host> [^\[\]:\s/]+ ) )"
    r": (?P<port> [0-9]{1,5} )",
    re.VERBOSE,
)
_SQLITE_FILE = re.compile(r"sqlite(?:\+pysqlite)?:///(?P<file>[^?]*)(?:\?.*)?")


class ConfigError(ValueError):
    """A setting that cannot work; the text names the option and says how to mend it."""


class Listen(NamedTuple):
    """Where to listen: a host name or address, without brackets, and a port; 0 for any free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


DEFAULT_LISTEN = Listen("127.0.0.1", 50051)


def parse_listen(text: str) -> Listen:
    """The address in "127.0.0.1:50051" or "[::1]:50051". ConfigError where it is none."""
    match = _LISTEN.fullmatch(text)
    if match is None:
        raise ConfigError(
            f"--listen: must be HOST:PORT such as {DEFAULT_LISTEN} or [::1]:50051, got {text!r}"
        )
    port = int(match["port"])
    if port > 65_535:
        raise ConfigError(f"--listen: the port must be 0 to 65535, got {port}")
    return Listen(match["ipv6"] or match["host"], port)


@dataclass(frozen=True, slots=True)
class Settings:
    """What ``tollwire serve`` runs with. Making one raises ConfigError where a value cannot work.

    ``max_streams`` bounds the streaming RPCs of each worker at one time. ``grace_seconds`` is how
    long RPCs in flight may go on after SIGTERM. ``database_wait_seconds`` is how long the database
    may take for the usual answer, and a stream waits for one that is away.
    ``failure_retention_days`` is how long the failed records of uploads are kept; 0: for ever.
    """

    listen: Listen = DEFAULT_LISTEN
    database: str = DEFAULT_DATABASE
    workers: int = 1
    max_streams: int = DEFAULT_MAX_STREAMS
    grace_seconds: float = DEFAULT_GRACE_SECONDS
    failure_retention_days: int = 0
    database_wait_seconds: float = DEFAULT_DATABASE_WAIT_SECONDS
    log_level: str = "INFO"

    def __post_init__(self) -> None:
        _check_database(self.database)
        _check_range("--workers", self.workers, 1, MAX_WORKERS)
        _check_range("--max-streams", self.max_streams, 1, MAX_MAX_STREAMS)
        _check_range("--grace-seconds", self.grace_seconds, 0, MAX_GRACE_SECONDS)
        _check_range(
            "--failure-retention-days", self.failure_retention_days, 0, MAX_FAILURE_RETENTION_DAYS
        )
        _check_range(
            "--database-wait-seconds", self.database_wait_seconds, 0.5, MAX_DATABASE_WAIT_SECONDS
        )
        if self.log_level not in LOG_LEVELS:
            raise ConfigError(
                f"--log-level: must be one of {', '.join(LOG_LEVELS)}, got {self.log_level!r}"
            )


def _check_range(option: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ConfigError(f"{option}: must be {low:g} to {high:g}, got {value:g}")


def _check_database(url: str) -> None:
    # The URL may hold a password: it is not repeated.
    scheme, separator, _ = url.partition("://")
    backend = scheme.partition("+")[0] if separator else ""
    if backend == "postgresql":
        _check_port(url)
    elif backend == "sqlite":
        match = _SQLITE_FILE.fullmatch(url)
        if match is None or match["file"] in ("", ":memory:") or "mode=memory" in url:
            raise ConfigError(
                "--database: an SQLite database must be a file, as in sqlite:///tollwire.db;"
                " one in memory would lose acknowledged records"
            )
    else:
        raise ConfigError(
            "--database: must be sqlite:///FILE or postgresql+psycopg://USER@HOST/NAME"
        )


def _check_port(url: str) -> None:
    try:
        _ = urlsplit(url).port
    except ValueError:
        raise ConfigError("--database: the port must be a number up to 65535") from None
