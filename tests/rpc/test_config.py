"""Settings: what can work is taken, what cannot is refused in one sentence naming the option."""

from __future__ import annotations

from typing import Any

import pytest

from service.config import ConfigError, Listen, Settings, parse_listen


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:50051", "127.0.0.1", 50051),
        ("localhost:0", "localhost", 0),
        ("0.0.0.0:65535", "0.0.0.0", 65535),
        ("[::1]:50051", "::1", 50051),
        ("[::]:1", "::", 1),
        ("[fe80::1%eth0]:7", "fe80::1%eth0", 7),
        ("host-1.example:80", "host-1.example", 80),
    ],
)
def test_listen_is_parsed_and_shown_as_it_was(text: str, host: str, port: int) -> None:
    listen = parse_listen(text)
    assert listen == Listen(host, port)
    assert str(listen) == text


@pytest.mark.parametrize(
    "text",
    [
        *("", ":50051", "127.0.0.1", "127.0.0.1:", "50051", "::1:50051", "[::1]", "[]:1"),
        *("host:-1", "host:1a", "host:65536", "host:123456", "a b:1", "http://host:1", "h:1\n"),
        *("host:٣", "unix:/tmp/x"),
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--listen"):
        parse_listen(text)


@pytest.mark.parametrize(
    "url",
    [
        *("sqlite:///tollwire.db", "sqlite:////var/lib/tollwire.db", "sqlite:///a.db?timeout=3"),
        *("postgresql+psycopg://user:secret@host:5432/name", "postgresql://host/name"),
        "postgresql+psycopg:///name?host=/tmp",
    ],
)
def test_databases(url: str) -> None:
    assert Settings(database=url).database == url


@pytest.mark.parametrize(
    "url",
    [
        *("", "tollwire.db", "mysql://host/name", "postgres://host/name", "postgresql:name"),
        *("sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite:///x?mode=memory&uri=true"),
        *("postgresql://host:port/name", "postgresql://host:99999/name"),
    ],
)
def test_a_database_that_cannot_work_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="--database"):
        Settings(database=url)


def test_a_refused_url_is_not_repeated() -> None:
    with pytest.raises(ConfigError) as refused:
        Settings(database="mysql://user:secret@host/name")
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("fields", "option"),
    [
        ({"workers": 0}, "--workers"),
        ({"workers": 257}, "--workers"),
        ({"max_streams": 0}, "--max-streams"),
        ({"max_streams": 4097}, "--max-streams"),
        ({"grace_seconds": -1}, "--grace-seconds"),
        ({"grace_seconds": float("nan")}, "--grace-seconds"),
        ({"grace_seconds": float("inf")}, "--grace-seconds"),
        ({"failure_retention_days": -1}, "--failure-retention-days"),
        ({"failure_retention_days": 36_501}, "--failure-retention-days"),
        ({"database_wait_seconds": 0.4}, "--database-wait-seconds"),
        ({"database_wait_seconds": 201}, "--database-wait-seconds"),
        ({"log_level": "debug"}, "--log-level"),
    ],
)
def test_a_setting_out_of_range_is_refused(fields: dict[str, Any], option: str) -> None:
    with pytest.raises(ConfigError, match=f"^{option}: must be "):
        Settings(**fields)


def test_the_edges_are_allowed() -> None:
    Settings(workers=256, max_streams=4096, grace_seconds=0, log_level="ERROR")
    Settings(workers=1, max_streams=1, grace_seconds=3600, log_level="DEBUG")
    Settings(failure_retention_days=36_500)
    Settings(database_wait_seconds=0.5)
    Settings(database_wait_seconds=200)
