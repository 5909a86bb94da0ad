"""Settings: valid ones are accepted, others are refused in one sentence that names the option."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tollwire.loopback import is_loopback_target
from tollwire.service.settings.config import OPTIONS, Settings
from tollwire.service.settings.parsing import ConfigError, Listen, parse_listen


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
def test_an_invalid_address_is_refused(text: str) -> None:
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


def test_a_second_url_goes_with_postgresql_alone() -> None:
    url = "postgresql+psycopg://user:secret@host/name"
    assert Settings(database=url, session_database=url).session_database == url
    assert Settings(session_database="").session_database is None
    with pytest.raises(ConfigError, match="--session-database: can be used only if"):
        Settings(session_database=url)
    with pytest.raises(ConfigError, match="--session-database: the port") as refused:
        Settings(database=url, session_database="postgresql://user:secret@host:port/name")
    assert "secret" not in str(refused.value)


OUT_OF_RANGE: list[tuple[str, object]] = [
    *[("workers", 0), ("workers", 257), ("max_connections", 0), ("max_connections", 1_000_001)],
    *[("max_rpcs", 0), ("max_rpcs", 100_001), ("max_streams", 0), ("max_streams", 4097)],
    *[("max_tenant_rates", 0), ("max_tenant_rates", 100_000_001)],
    *[("max_deck_bytes", (1 << 20) - 1), ("max_deck_bytes", (1 << 40) + 1)],
    *[("max_request_bytes_in_work", (32 << 20) - 1), ("max_request_bytes_in_work", (1 << 40) + 1)],
    *[("tenant_share", 0), ("tenant_share", 1.1), ("max_connection_age_seconds", -1)],
    *[("max_connection_age_seconds", 31_536_001), ("grace_seconds", -1), ("grace_seconds", 3601)],
    *[("grace_seconds", float("nan")), ("grace_seconds", float("inf"))],
    *[("failure_retention_days", -1), ("failure_retention_days", 36_501)],
    *[("max_connections_per_address", 0), ("max_connections_per_address", 1_000_001)],
    *[("stream_wait_seconds", 0.9), ("stream_wait_seconds", 86_401)],
    *[("database_wait_seconds", 0.4), ("database_wait_seconds", 201)],
    *[("database_start_wait_seconds", -1), ("database_start_wait_seconds", 31_536_001)],
]
OF_ANOTHER_TYPE: list[tuple[str, object]] = [
    *[("workers", "many"), ("workers", "1.5"), ("workers", True), ("workers", [2])],
    *[("grace_seconds", ""), ("grace_seconds", False), ("insecure", "maybe"), ("traces", 2)],
    *[("log_full_numbers", {}), ("log_level", "loud")],
    ("transport", "http"),
    *[("log_format", "xml"), ("access", "all"), ("log_level", 3), ("database", 5)],
    *[("session_database", 5), ("session_database", "sqlite:///x.db")],
    *[
        ("ledger_key_file", 5),
        ("tls_cert_file", 5),
        ("tls_key_file", []),
        ("tls_client_ca_file", {}),
    ],
    ("backup_record_file", 5),
    ("health_listen", "9000"),
    *[("listen", 50051), ("metrics_listen", "9000"), ("metrics_listen", "a:65536")],
]


@pytest.mark.parametrize(("field", "value"), OUT_OF_RANGE + OF_ANOTHER_TYPE)
def test_an_invalid_setting_is_refused(field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"^{OPTIONS[field].flag}: [^\n]*must be ") as refused:
        Settings(**{field: value})
    assert refused.value.field == field


def test_each_field_is_refused_somewhere_above() -> None:
    refused = {field for field, _ in OUT_OF_RANGE + OF_ANOTHER_TYPE}
    assert refused == set(Settings.model_fields)


def test_a_refusal_has_the_allowed_values_and_the_given_one() -> None:
    for value, words in (
        ({"workers": "x"}, "--workers: must be auto, or a whole number from 1 to 256, got 'x'"),
        ({"tenant_share": 2}, "--tenant-share: must be a number above 0 and up to 1, got 2"),
        ({"insecure": "x"}, "--insecure: must be true or false, got 'x'"),
        ({"access": "all"}, "--access: must be one of auto, open, tokens, got 'all'"),
    ):
        with pytest.raises(ConfigError) as refused:
            Settings(**value)
        assert str(refused.value) == words


def test_the_edges_are_allowed() -> None:
    Settings(workers=256, max_streams=4096, grace_seconds=0, log_level="ERROR", tenant_share=1)
    Settings(workers=1, max_streams=1, grace_seconds=3600, log_level="DEBUG", max_rpcs=1)
    Settings(failure_retention_days=36_500, max_rpcs=100_000, max_connections=1_000_000)
    Settings(database_wait_seconds=0.5, max_connections=1, max_request_bytes_in_work=32 << 20)
    Settings(database_wait_seconds=200, max_connection_age_seconds=31_536_000)


@pytest.mark.parametrize(
    ("files", "option"),
    [
        ({"tls_cert_file": "c"}, "--tls-cert-file"),
        ({"tls_key_file": "k"}, "--tls-key-file"),
        ({"tls_client_ca_file": "a"}, "--tls-client-ca-file"),
    ],
)
def test_files_of_tls_are_needed_together(files: dict[str, Any], option: str) -> None:
    with pytest.raises(ConfigError, match=f"^{option}.*: needs "):
        Settings(**files)


def test_all_files_of_tls_together() -> None:
    settings = Settings(tls_cert_file="c", tls_key_file="k", tls_client_ca_file="a")
    assert settings.tls_cert_file == Path("c")
    assert settings.uses_tls


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"listen": "0.0.0.0:1"}, "native cannot limit the memory of requests, and other machines"),
        ({"listen": "[::]:1", "insecure": True}, "native cannot limit the memory of requests"),
        ({"tls_cert_file": "c", "tls_key_file": "k"}, "native does not support --tls-cert-file;"),
        ({"tls_key_file": "k"}, "native does not support --tls-key-file;"),
        ({"tls_client_ca_file": "a"}, "native does not support --tls-client-ca-file;"),
        ({"max_connection_age_seconds": 5}, "does not support --max-connection-age-seconds;"),
    ],
)
def test_what_the_native_transport_cannot_do_is_refused(fields: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=f"^--transport: .*{re.escape(words)}.*use grpcio"):
        Settings(transport="native", **fields)


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost"])
def test_the_native_transport_serves_this_machine(host: str) -> None:
    settings = Settings(transport="native", listen=f"{host}:1", workers=4, access="tokens")
    assert Settings(**settings.model_dump(mode="json")) == settings


OTHERS_REACH = ["0.0.0.0", "[::]", "192.0.2.1", "example.com", "[::ffff:8.8.8.8]"]
PAIR = {"tls_cert_file": "c", "tls_key_file": "k"}


@pytest.mark.parametrize("host", OTHERS_REACH)
def test_a_public_address_needs_tls_and_tokens(host: str) -> None:
    listen = f"{host}:50051"
    with pytest.raises(ConfigError, match=r"^--listen: .*--tls-cert-file.*--insecure") as refused:
        Settings(listen=listen)
    assert listen in str(refused.value)
    with pytest.raises(ConfigError, match=r"^--listen: "):
        Settings(listen=listen, access="tokens")
    with pytest.raises(ConfigError, match=r"^--access: open .*--insecure"):
        Settings(listen=listen, access="open", **PAIR)
    assert not Settings(listen=listen, **PAIR).may_be_open
    assert not Settings(listen=listen, insecure=True).may_be_open
    assert Settings(listen=listen, insecure=True, access="open").may_be_open


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "[::1]", "localhost", "LOCALHOST"])
def test_a_loopback_address_is_open_by_default(host: str) -> None:
    listen = f"{host}:50051"
    assert Settings(listen=listen).may_be_open
    assert not Settings(listen=listen, access="tokens").may_be_open
    assert not Settings(listen=listen, **PAIR).may_be_open
    assert Settings(listen=listen, access="open", **PAIR).may_be_open


@pytest.mark.parametrize(
    "target",
    [
        *("127.0.0.1:50051", "localhost:1", "[::1]:1", "::1", "localhost", "dns:localhost:1"),
        *("dns:///localhost:1", "unix:/run/tollwire.sock", "unix-abstract:tollwire"),
        *("ipv4:127.0.0.1:1,127.0.0.2:1", "ipv6:[::1]:1", "[::ffff:127.0.0.1]:1", "localhost.:1"),
    ],
)
def test_servers_on_this_machine(target: str) -> None:
    assert is_loopback_target(target)


@pytest.mark.parametrize(
    "target",
    [
        *(
            "",
            ":1",
            "example.com:1",
            "localhost.example.com:1",
            "127.0.0.1.example.com:1",
            "1.1.1.1",
        ),
        *("127.0.0.1@example.com:1", "dns://192.0.2.1/localhost:1", "ipv4:127.0.0.1:1,192.0.2.1:1"),
        *("xds:///localhost", "localhost:example.com:1", "[2001:db8::1]:1", "2130706433:1"),
        "127.0.0.1.example.com:1",
    ],
)
def test_servers_on_other_machines(target: str) -> None:
    assert not is_loopback_target(target)


def test_an_empty_text_means_none() -> None:
    settings = Settings(metrics_listen="", tls_cert_file="", tls_key_file="", tls_client_ca_file="")
    assert settings == Settings()
    assert settings.metrics_listen is None


def test_texts_become_values() -> None:
    settings = Settings(listen="[::1]:0", workers="3", insecure="yes", log_level="debug")
    assert settings.listen == Listen("::1", 0)
    assert (settings.workers, settings.insecure, settings.log_level) == (3, True, "DEBUG")
    assert Settings(metrics_listen="[::1]:9100").metrics_listen == Listen("::1", 9100)


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^wrokers: there is no such setting"):
        Settings(wrokers=3)


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().workers = 2


def test_a_worker_gets_the_same_settings_from_json() -> None:
    settings = Settings(
        listen="[::1]:7",
        database="postgresql+psycopg://u:p@h/n",
        metrics_listen="127.0.0.1:0",
        tls_cert_file="certs/c.pem",
        tls_key_file="certs/k.pem",
        tenant_share=0.25,
        log_full_numbers=True,
    )
    assert Settings(**json.loads(json.dumps(settings.model_dump(mode="json")))) == settings
    assert Settings(**json.loads(json.dumps(Settings().model_dump(mode="json")))) == Settings()


def test_the_environment_is_not_read_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOLLWIRE_WORKERS", "7")
    assert Settings().workers == 1


def test_every_field_has_a_reason_and_a_default_that_works() -> None:
    for field, option in OPTIONS.items():
        assert option.description.endswith("."), field
    Settings(**{field: option.default for field, option in OPTIONS.items()})
