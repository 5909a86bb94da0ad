"""Commands with settings: options from the fields, and clients that do not load them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from tollwire.service.cli.main import main
from tollwire.service.cli.settings import with_settings
from tollwire.service.settings.config import OPTIONS
from tollwire.service.settings.sources import Loaded


@pytest.fixture(autouse=True)
def no_settings_around(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("TOLLWIRE_CONFIG", *(option.variable for option in OPTIONS.values())):
        monkeypatch.delenv(variable, raising=False)


@with_settings("show")
def show(loaded: Loaded) -> None:
    """Print the source of each setting that was given."""
    for field, origin in loaded.origins.items():
        if origin != "default":
            click.echo(f"{field} {getattr(loaded.settings, field)} {origin}")


@with_settings("narrow", ["database"])
def narrow(loaded: Loaded) -> None:
    """Has only the option for the database."""
    click.echo(f"{loaded.settings.workers}")


def test_every_field_is_an_option_with_its_variable_and_default() -> None:
    result = CliRunner().invoke(main, ["serve", "--help"], terminal_width=1000)
    assert result.exit_code == 0
    lines = result.output.splitlines()
    for option in OPTIONS.values():
        (line,) = [line for line in lines if re.search(rf"env: {option.variable}\b", line)]
        assert f"{option.flag} " in line or f"{option.flag} " in result.output
        assert option.description in line
        assert option.default in line


def test_options_the_environment_and_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a.toml"
    file.write_text("max_rpcs = 5\ninsecure = true\ntraces = true\n")
    monkeypatch.setenv("TOLLWIRE_CONFIG", str(file))
    monkeypatch.setenv("TOLLWIRE_MAX_STREAMS", "6")
    result = CliRunner().invoke(show, ["--workers", "7", "--no-insecure", "--log-full-numbers"])
    assert result.output.splitlines() == [
        "workers 7 --workers",
        "insecure False --insecure",
        f"max_rpcs 5 {file}",
        "max_streams 6 TOLLWIRE_MAX_STREAMS",
        "log_full_numbers True --log-full-numbers",
        f"traces True {file}",
    ]


def test_a_wrong_value_is_one_line_that_names_the_option() -> None:
    for command in (show, main.commands["serve"]):
        result = CliRunner().invoke(command, ["--workers", "0"])
        assert result.exit_code == 2
        assert result.output.splitlines()[-1] == (
            "Error: --workers: must be auto, or a whole number from 1 to 256, got '0'"
        )
    result = CliRunner().invoke(main, ["serve", "--workers", "0"])
    assert result.output.startswith(
        "tollwire: --workers: must be auto, or a whole number from 1 to 256"
    )


def test_a_command_may_have_some_of_the_options(monkeypatch: pytest.MonkeyPatch) -> None:
    assert CliRunner().invoke(narrow, ["--workers", "2"]).exit_code == 2
    monkeypatch.setenv("TOLLWIRE_WORKERS", "3")
    assert CliRunner().invoke(narrow, ["--database", "sqlite:///x.db"]).output == "3\n"


def test_clients_do_not_load_the_modules_of_a_server() -> None:
    program = (
        "import sys\n"
        "from click.testing import CliRunner\n"
        "from tollwire.service.cli.main import main\n"
        "for arguments in (['--help'], ['tenants', 'list', '--help']):\n"
        "    assert CliRunner().invoke(main, arguments).exit_code == 0\n"
        "heavy = {'pydantic', 'sqlalchemy', 'tollwire.service.settings.config'}\n"
        "print(*sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == ""
