"""``tollwire config`` and ``tollwire doctor``, as commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tollwire.service.cli.main import main
from tollwire.service.settings.config import OPTIONS, Settings
from tollwire.service.settings.parsing import without_secrets


@pytest.fixture(autouse=True)
def nothing_around(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for variable in ("TOLLWIRE_CONFIG", *(option.variable for option in OPTIONS.values())):
        monkeypatch.delenv(variable, raising=False)


def ran(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def test_config_shows_values_and_their_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.toml").write_text("max_rpcs = 5\n")
    monkeypatch.setenv("TOLLWIRE_WORKERS", "3")
    done = ran("config", "--config", "a.toml", "--grace-seconds", "7", "--traces", "--json")
    assert done.exit_code == 0
    shown: dict[str, Any] = json.loads(done.stdout)
    assert list(shown) == list(Settings.model_fields)
    assert shown["max_rpcs"] == {"value": "5", "from": "a.toml"}
    assert shown["workers"] == {"value": "3", "from": "TOLLWIRE_WORKERS"}
    assert shown["grace_seconds"] == {"value": "7", "from": "--grace-seconds"}
    assert shown["traces"] == {"value": "true", "from": "--traces"}
    assert shown["listen"] == {"value": "127.0.0.1:50051", "from": "default"}
    lines = ran("config", "--workers", "4").stdout.splitlines()
    assert "workers" in " ".join(line for line in lines if line.split()[1:] == ["4", "--workers"])
    assert len(lines) == 1 + len(OPTIONS)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://u:se@cr:et@h:5/n", "postgresql://u:***@h:5/n"),
        ("postgresql+psycopg://:secret@h/n", "postgresql+psycopg://:***@h/n"),
        ("postgresql://u@h/n?password=secret&x=y", "postgresql://u@h/n?password=***&x=y"),
        ("postgresql://h/n?x=y&sslpassword=secret", "postgresql://h/n?x=y&sslpassword=***"),
        *[(same, same) for same in ("postgresql://u@h:5/n", "sqlite:///a:b@c.db", "[::1]:5", "")],
    ],
)
def test_secrets_are_masked(url: str, shown: str) -> None:
    assert without_secrets(url) == shown


@pytest.mark.parametrize(
    "rest", ["@h/n", "/cret@h/n", "cr/et@h/n", "?cret@h/n", ":cret@h:5/n", "#cret@127.0.0.1:1/n"]
)
@pytest.mark.parametrize("option", ["--database", "--session-database"])
def test_no_part_of_a_password_with_an_at_sign_is_shown(option: str, rest: str) -> None:
    arguments = [option, f"postgresql+psycopg://user:pa@cret{rest}"]
    if option != "--database":
        arguments += ["--database", "postgresql+psycopg://127.0.0.1:1/n"]
    wait = ("--database-start-wait-seconds", "1")  # a URL that is not refused would be tried
    done = ran("serve", "--listen", "127.0.0.1:0", *wait, *arguments)
    assert done.exit_code == 1
    assert "cret" not in done.output
    assert "%40" in done.output


@pytest.mark.parametrize(
    "rest, words",
    [
        ("?bogus=1", "no parameter 'bogus'"),
        ("?timeout=x", "could not convert"),
        ("?cached_statements=x", "invalid literal"),
        ("?vfs=bogus&uri=true", "no such vfs: bogus"),
        ("?mode=bogus&uri=true", "no such access mode: bogus"),
    ],
)
@pytest.mark.parametrize("command", ["migrate", "doctor"])
def test_a_wrong_parameter_of_the_url_is_named(
    tmp_path: Path, command: str, rest: str, words: str
) -> None:
    path = tmp_path / "x.db"
    path.touch()
    done = ran(command, "--database", f"sqlite:///file:{path}{rest}")
    assert done.exit_code == 1
    assert words in done.output
    assert "Traceback" not in done.output


def test_config_shows_no_password() -> None:
    done = ran("config", "--database", "postgresql://user:secret@host/name")
    assert done.exit_code == 0
    assert "postgresql://user:***@host/name" in done.stdout
    assert "secret" not in done.output


def test_unknown_variables_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOLLWIRE_WROKERS", "3")
    monkeypatch.setenv("TOLLWIRE_SERVER", "127.0.0.1:1")
    monkeypatch.setenv("TOLLWIRE_LISTEN", "127.0.0.1:0")
    for command in ("config", "doctor"):
        errors = ran(command).stderr
        assert "TOLLWIRE_WROKERS" in errors
        assert "TOLLWIRE_SERVER" not in errors
        assert "TOLLWIRE_LISTEN" not in errors


def test_doctor_without_findings(tmp_path: Path) -> None:
    done = ran("doctor", "--listen", "127.0.0.1:0", "--json")
    assert done.exit_code == 0
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert {one["part"] for one in found} >= {"database", "certificates", "open files", "port"}
    assert list(tmp_path.iterdir()) == []


def test_doctor_with_findings() -> None:
    done = ran("doctor", "--listen", "127.0.0.1:0", "--database", "sqlite:///none/x.db")
    assert done.exit_code == 1
    lines = done.stdout.splitlines()
    at = next(index for index, line in enumerate(lines) if line.startswith("problem  database:"))
    assert lines[at + 1].strip().startswith("-> create it")
