"""Every failure is one line on stderr and an exit code: full disks, closed pipes, unreadable files.

The real command runs as a process, against a real server.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.cli.forking import run_command
from tests.cli.terminal import on_terminal
from tests.integration.serving import environment, serving
from tollwire.service.cli.main import main

DECK = "prefix,destination,cost_per_minute,billing_increment\n44,UK,0.02,6\n"
CALLS = """\
destination_number,direction,disposition,started_at,duration_seconds
44,outbound,answered,2026-03-01T00:00:00Z,-1
"""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(f"sqlite:///{tmp_path_factory.mktemp('program') / 'tollwire.db'}") as server:
        rate = "rates add --tenant 1 --cost-per-minute 1 --billing-increment 1 --prefix"
        for arguments in (
            ["tenants", "add", "--id", "1", "--name", "Acme\x1b[31m"],
            [*rate.split(), "1"],
            [*rate.split(), "44"],
        ):
            result = CliRunner().invoke(main, [*arguments, "--server", server.address])
            assert result.exit_code == 0, result.output
        yield server.address


def run(
    address: str, *arguments: str, stdout: int | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command as a process. Its output is captured unless ``stdout`` is given."""
    env = environment() | {"TOLLWIRE_SERVER": address}
    with (
        Path(os.devnull).open() as nothing,
        tempfile.TemporaryFile("w+", encoding="utf-8") as output,
        tempfile.TemporaryFile("w+", encoding="utf-8") as errors,
    ):
        written = output.fileno() if stdout is None else stdout
        code = run_command(arguments, env, (nothing.fileno(), written, errors.fileno()))
        output.seek(0)
        errors.seek(0)
        return subprocess.CompletedProcess(arguments, code, output.read(), errors.read())


def assert_one_line(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 2, done
    assert done.stderr.startswith('{"error": ' if "--json" in done.args else "tollwire: "), done
    assert done.stderr.count("\n") == 1, done.stderr
    for word in words:
        assert word in done.stderr


PRINTING = (
    "--help",
    "rates list",
    "rates list --json",
    "rates export --tenant 1",
    "cdrs export",
    "usage",
    "tenants show 1",
    "rate 44 --tenant 1 --seconds 1",
    "config",
)


@pytest.mark.parametrize("command", PRINTING)
def test_a_full_disk_is_one_line(address: str, command: str) -> None:
    with Path("/dev/full").open("w") as full:
        done = run(address, *command.split(), stdout=full.fileno())
    assert_one_line(done, "cannot write the output: No space left on device")


@pytest.mark.parametrize("command", PRINTING)
def test_a_closed_pipe_ends_the_command_quietly(address: str, command: str) -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    try:
        done = run(address, *command.split(), stdout=theirs)
    finally:
        os.close(theirs)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize("command", ["rates export --tenant 1", "cdrs export", "cdrs failures 1"])
@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/nonexistent/x", "No such file or directory"),
        ("/dev/full", "No space left on device"),
        ("{folder}", "directory"),
        ("{folder}/" + "x" * 300, "File name too long"),
    ],
)
def test_a_file_that_cannot_be_written(
    address: str, command: str, path: str, words: str, tmp_path: Path
) -> None:
    if command.startswith("cdrs failures"):
        file = tmp_path / "calls.csv"
        file.write_text(CALLS)
        run(address, "cdrs", "upload", str(file), "--tenant", "1")
    path = path.format(folder=tmp_path)
    assert_one_line(run(address, *command.split(), "-o", path), path, words)
    assert not list(tmp_path.glob(".*partial"))
    assert Path("/dev/full").is_char_device()


def test_an_export_replaces_the_target_of_a_link(address: str, tmp_path: Path) -> None:
    file, link = tmp_path / "deck.csv", tmp_path / "link"
    link.symlink_to(file)
    done = run(address, "rates", "export", "--tenant", "1", "-o", str(link))
    assert done.stderr == f"tollwire: 2 records written to {link}\n"
    assert link.is_symlink()
    assert len(file.read_text().splitlines()) == 3


@pytest.mark.parametrize(
    "command", ["rates import {} --tenant 1", "cdrs upload {} --tenant 1 --format csv"]
)
@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("/nonexistent/x", "exist"),
        ("/tmp", "directory"),
        ("/proc/self/mem", "Input/output error"),
        ("book.xlsx", "Excel workbook"),
        ("noise", "binary"),
    ],
)
def test_a_file_that_cannot_be_read(
    address: str, command: str, file: str, words: str, tmp_path: Path
) -> None:
    if not file.startswith("/"):
        path = tmp_path / file
        path.write_bytes(b"PK\x03\x04" + bytes(1000) if file == "book.xlsx" else bytes(1000))
        file = str(path)
    done = run(address, *(word.format(file) for word in command.split()))
    if words == "exist":
        words = "No such file" if command.startswith("rates") else "does not exist"
    assert_one_line(done, file, words)


@pytest.mark.parametrize(
    "arguments",
    [
        ("rates", "list", "--token-file", "/nonexistent/x"),
        ("rates", "list", "--ca-file", "/tmp"),
        ("config", "--config", "/nonexistent/x"),
        ("config", "--config", "/tmp"),
        ("cdrs", "upload", "-", "--format", "csv", "--failures", "/nonexistent/x"),
        ("backup", "/nonexistent/x", "--database", "sqlite:////nonexistent/y"),
        ("tenants", "add", "--name", "\udcff"),
        ("tenants", "add", "--name", " "),
        ("rates", "lst"),
    ],
)
def test_other_failures_are_one_line(address: str, arguments: tuple[str, ...]) -> None:
    done = run(address, *arguments)
    assert done.returncode in ((1, 2) if arguments[0] == "backup" else (2,)), done
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1


def test_errors_as_json(address: str) -> None:
    refused = run(address, "tenants", "show", "999", "--json")
    assert (refused.returncode, refused.stdout) == (1, "")
    error = json.loads(refused.stderr)["error"]
    assert (error["code"], error["reason"]) == ("NOT_FOUND", "TENANT_NOT_FOUND")
    assert "999" in error["message"]
    bad = run(
        address,
        *("rates", "add", "--tenant", "1", "--prefix", "7", "--cost-per-minute", "-1"),
        *("--billing-increment", "0", "--json"),
    )
    error = json.loads(bad.stderr)["error"]
    assert error["code"] == "INVALID_ARGUMENT"
    assert [(field["field"], field["option"]) for field in error["fields"]] == [
        ("rate.cost_per_minute", "--cost-per-minute"),
        ("rate.billing_increment", "--billing-increment"),
    ]
    assert all(field["message"] for field in error["fields"])
    usage = run(address, "rates", "list", "--limit", "x", "--json")
    assert usage.returncode == 2
    assert json.loads(usage.stderr)["error"]["code"] == "USAGE"
    nobody = run("127.0.0.1:1", "rates", "list", "--json")
    assert (nobody.returncode, json.loads(nobody.stderr)["error"]["code"]) == (3, "UNAVAILABLE")


def test_errors_name_options(address: str) -> None:
    add = ("rates", "add", "--tenant", "1", "--prefix", "8", "--billing-increment", "60")
    done = run(address, *add, "--cost-per-minute", "x")
    assert "--cost-per-minute: " in done.stderr
    assert "rate.cost_per_minute" not in done.stderr
    done = run(address, *add, "--cost-per-minute", "1", "--interval", "60:1:0")
    assert "--interval[0].billing_increment: " in done.stderr
    done = run(address, "rate", "44", "--tenant", "1", "--seconds", "-1")
    assert "--seconds: " in done.stderr


def test_connection_options_before_the_command(address: str) -> None:
    nowhere = "127.0.0.1:1"
    assert run(nowhere, "--server", address, "rates", "list").returncode == 0
    assert run(address, "--server", nowhere, "rates", "list").returncode == 3
    # The option after the command has precedence.
    assert run(nowhere, "--server", nowhere, "rates", "list", "--server", address).returncode == 0
    refused = run(address, "--token", "x", "--token-file", "y", "rates", "list")
    assert refused.returncode == 2
    wrong = run(address, "--timeout", "0", "rates", "list")
    assert "--timeout" in wrong.stderr


def test_help_shows_connection_options_once() -> None:
    top = CliRunner().invoke(main, ["--help"]).stdout
    assert top.count("--ca-file FILE") == 1
    command = CliRunner().invoke(main, ["rates", "list", "--help"]).stdout
    assert command.count("--server HOST:PORT") == 1
    assert "--ca-file FILE" not in command
    assert '"tollwire --help"' in command


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_empty_lists_say_so(address: str, more: list[str]) -> None:
    for command, words in (
        ("extensions list", "no extensions"),
        ("cdrs list --search nothing", "no CDRs"),
        ("rates list --search nothing", "no rates"),
        ("cdrs reversals", "no reversals"),
        ("tokens list", "no tokens"),
        ("audit list --to 2000-01-01", "no administrative changes"),
    ):
        done = run(address, *command.split(), *more)
        told = "" if more else f"tollwire: {words}\n"
        assert (done.returncode, done.stdout, done.stderr) == (0, "", told)


def test_a_field_is_not_a_connection_option(address: str) -> None:
    done = run(address, "tokens", "add", "x", "--role", "admin")
    assert "--tenant: must name" in done.stderr


def test_old_names_of_commands_stay(address: str) -> None:
    made = json.loads(
        run(address, "tokens", "create", "x", "--role", "admin", "--every-tenant", "--json").stdout
    )
    assert run(address, "tokens", "get", made["token"]["id"]).returncode == 0
    assert "CreateToken" in run(address, "audit").stdout
    assert "CreateToken" in run(address, "audit", "--action", "CreateToken").stdout
    shown = CliRunner().invoke(main, ["tokens", "--help"]).stdout
    assert "add " in shown and "create" not in shown


def test_a_terminal_gets_no_control_characters(address: str) -> None:
    for command in (
        "tenants list",
        "tenants show 1",
        "tenants show 1 --json",
        "audit --columns after",
    ):
        seen = on_terminal(command.split(), 200, TOLLWIRE_SERVER=address)
        assert "Acme" in seen.screen
        assert "\x1b[31m" not in seen.raw


def test_completion() -> None:
    env = environment() | {
        "_TOLLWIRE_COMPLETE": "bash_complete",
        "COMP_WORDS": "tollwire rates l",
        "COMP_CWORD": "2",
    }
    done = subprocess.run(
        [sys.executable, "-m", "tollwire.service.cli.main"], env=env, capture_output=True, text=True
    )
    assert done.stdout.split() == ["plain,list"]
