"""The sources of settings: their precedence, and the source of a wrong value."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tollwire.service.settings.config import OPTIONS, Settings
from tollwire.service.settings.parsing import ConfigError, Listen
from tollwire.service.settings.sources import load


@pytest.fixture(autouse=True)
def no_settings_around(monkeypatch: pytest.MonkeyPatch) -> None:
    for option in OPTIONS.values():
        monkeypatch.delenv(option.variable, raising=False)


def written(folder: Path, text: str) -> Path:
    path = folder / "tollwire.toml"
    path.write_text(text, "utf-8")
    return path


def test_without_sources_all_are_defaults() -> None:
    loaded = load({}, None)
    assert loaded.settings == Settings()
    assert set(loaded.origins.values()) == {"default"}
    assert set(loaded.origins) == set(Settings.model_fields)


def test_options_come_before_the_environment_and_that_before_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = written(tmp_path, "workers = 2\nmax_streams = 3\ngrace_seconds = 4.5\n")
    monkeypatch.setenv("TOLLWIRE_MAX_STREAMS", "30")
    monkeypatch.setenv("TOLLWIRE_GRACE_SECONDS", "40")
    loaded = load({"grace_seconds": "400"}, file)
    settings, origins = loaded.settings, loaded.origins
    assert (settings.workers, origins["workers"]) == (2, str(file))
    assert (settings.max_streams, origins["max_streams"]) == (30, "TOLLWIRE_MAX_STREAMS")
    assert (settings.grace_seconds, origins["grace_seconds"]) == (400, "--grace-seconds")
    assert origins["listen"] == "default"


def test_every_field_can_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for option in OPTIONS.values():
        # A variable with an empty value counts as not set.
        monkeypatch.setenv(option.variable, option.default or "")
    loaded = load({}, None)
    assert loaded.settings == Settings()
    for field, option in OPTIONS.items():
        assert loaded.origins[field] == (option.variable if option.default else "default")


def test_addresses_and_switches_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOLLWIRE_LISTEN", "[::1]:7")
    monkeypatch.setenv("TOLLWIRE_METRICS_LISTEN", "127.0.0.1:9")
    monkeypatch.setenv("TOLLWIRE_TRACES", "true")
    settings = load({}, None).settings
    assert settings.listen == Listen("::1", 7)
    assert settings.metrics_listen == Listen("127.0.0.1", 9)
    assert settings.traces


def test_a_file_of_every_type(tmp_path: Path) -> None:
    text = 'listen = "[::1]:8"\ninsecure = true\ntenant_share = 0.5\nmax_rpcs = 9\n'
    settings = load({}, written(tmp_path, text)).settings
    assert settings == Settings(listen="[::1]:8", insecure=True, tenant_share=0.5, max_rpcs=9)


def test_an_empty_variable_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOLLWIRE_WORKERS", "")
    assert load({}, None).settings.workers == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("workers = true", r"^--workers: must be .*, got true \(from /.*tollwire\.toml\)$"),
        ("workers = 0", r"^--workers: must be .*, got 0 \(from /.*tollwire\.toml\)$"),
        ("[workers]\nx = 1", "^--workers: must be "),
        (
            "wrokers = 2",
            r"^--config: .* sets 'wrokers', which is not a setting; did you mean workers",
        ),
        ("x = 2", "^--config: .* sets 'x', which is not a setting$"),
        ("workers = \n", "^--config: .* is not valid TOML: .*line 1"),
        ("workers = 1\nworkers = 2", "^--config: .* is not valid TOML: "),
        ('tls_cert_file = "c"', "^--tls-cert-file: needs --tls-key-file"),
    ],
)
def test_an_invalid_file(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load({}, written(tmp_path, text))


def test_a_binary_file(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"^--config: .* is not valid TOML: "):
        load({}, path)


@pytest.mark.parametrize("name", [".", "absent.toml"])
def test_a_file_that_cannot_be_read(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"^--config: cannot read /"):
        load({}, tmp_path / name)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, r"^--workers: must be .*, got 'x' \(from TOLLWIRE_WORKERS\)$"),
        ({"workers": "y"}, r"^--workers: must be .*, got 'y'$"),
    ],
)
def test_a_wrong_value_is_traced_to_its_source(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], words: str
) -> None:
    monkeypatch.setenv("TOLLWIRE_WORKERS", "x")
    with pytest.raises(ConfigError, match=words):
        load(options, None)


def test_a_password_in_a_wrong_url_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOLLWIRE_DATABASE", "mysql://user:secret@host/name")
    with pytest.raises(ConfigError, match="from TOLLWIRE_DATABASE") as refused:
        load({}, None)
    assert "secret" not in str(refused.value)
