"""Parses, checks and formats single values of settings. Must not depend on the settings model."""

from __future__ import annotations

import re
from typing import Any, NamedTuple
from urllib.parse import urlsplit

_LISTEN = re.compile(
    r"(?: \[ (?P<ipv6> [0-9A-Fa-f:.]+ (?: %\w+ )? ) \] | (?P<host> [^\[\]:\s/]+ ) )"
    r": (?P<port> [0-9]{1,5} )",
    re.VERBOSE,
)
SQLITE_FILE = re.compile(r"sqlite(?:\+pysqlite)?:///(?P<file>[^?]*)(?:\?.*)?")


class ConfigError(ValueError):
    """An invalid setting; the text names the option and what is allowed."""

    def __init__(self, text: str, field: str = "") -> None:
        """``field``: the field with the invalid value, if it is a single one."""
        super().__init__(text)
        self.field = field


class Listen(NamedTuple):
    """An address to listen on: a host name or address, without brackets, and a port; port 0: any
    free port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


DEFAULT_LISTEN = Listen("127.0.0.1", 50051)


def parse_listen(text: str, option: str = "--listen") -> Listen:
    """Parse "127.0.0.1:50051" or "[::1]:50051". ConfigError if the text has another form."""
    match = _LISTEN.fullmatch(text)
    if match is None:
        raise ConfigError(
            f"{option}: must be HOST:PORT such as {DEFAULT_LISTEN} or [::1]:50051, got {text!r}"
        )
    port = int(match["port"])
    if port > 65_535:
        raise ConfigError(f"{option}: the port must be 0 to 65535, got {port}")
    return Listen(match["ipv6"] or match["host"], port)


def check_database(url: str) -> str:
    """The URL itself. ConfigError if it is not the URL of a file or a PostgreSQL database."""
    # The URL may contain a password, so messages do not repeat it.
    scheme, separator, _ = url.partition("://")
    backend = scheme.partition("+")[0] if separator else ""
    if backend == "postgresql":
        _check_port(url)
    elif backend == "sqlite":
        match = SQLITE_FILE.fullmatch(url)
        if match is None or match["file"] in ("", ":memory:") or "mode=memory" in url:
            raise ConfigError(
                "--database: an SQLite database must be a file, as in sqlite:///tollwire.db;"
                " one in memory would lose acknowledged records"
            )
    else:
        raise ConfigError(
            "--database: must be sqlite:///FILE or postgresql+psycopg://USER@HOST/NAME"
        )
    return url


def check_session_database(url: str | None) -> str | None:
    """The URL itself. ConfigError if it is not the URL of a PostgreSQL database."""
    if url is None:
        return None
    if not re.match(r"postgresql(\+\w+)?://", url):
        raise ConfigError("--session-database: must be postgresql+psycopg://USER@HOST/NAME")
    _check_port(url, "--session-database")
    return url


def _check_port(url: str, option: str = "--database") -> None:
    try:
        _ = urlsplit(url).port
    except ValueError:
        raise ConfigError(f"{option}: the port must be a number up to 65535") from None


def as_text(value: Any) -> str:
    """A setting's value as a user writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    return "" if value is None else str(value)


_PASSWORD = re.compile(r"(://[^:@/?]*):.*@|([?&](?:\w*password|passfile)=)[^&]*")


def without_secrets(text: str) -> str:
    """A setting for display: passwords in URLs are replaced by ***."""
    return _PASSWORD.sub(lambda found: f"{found[1]}:***@" if found[1] else f"{found[2]}***", text)
