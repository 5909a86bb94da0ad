"""docs/cli.md shows what the command prints on terminals of several widths.

As a program, ``make cli-docs``, this writes these parts of the document anew.
"""

from __future__ import annotations

import re
import shlex
import tempfile
from pathlib import Path

from click.testing import CliRunner

from tests.cli.terminal import on_terminal
from tests.integration.serving import REPOSITORY, serving
from tollwire.service.cli import manual
from tollwire.service.cli.main import main

PATH = REPOSITORY / "docs" / "cli.md"
SHOWN = re.compile(r"(<!-- shown: (\d+): (.*?) -->\n)(?:```\n.*?```\n)?", re.DOTALL)

RECORDS = """\
tenants add --id 1001 --name "Acme Ltd" --currency EUR --country-code 44 --international-prefix 00
extensions add --id 2001 --tenant 1001 --number 101 --name Reception
rates add --tenant 1001 --prefix 1 --destination "United States" --cost-per-minute 0.0120 --billing-increment 60
rates add --tenant 1001 --prefix 44 --destination "United Kingdom" --cost-per-minute 0.0200 --billing-increment 6
rates add --tenant 1001 --prefix 447 --destination "United Kingdom, mobile" --cost-per-minute 0.1500 --billing-increment 6 --effective-from 2026-01-01
rates add --tenant 1001 --prefix 8816 --destination "Satellite telephones" --cost-per-minute 2150.7500 --billing-increment 60 --connect-fee 1.5
cdrs add --tenant 1001 --extension 2001 --caller 101 --destination "+44 20 7946 0000" --direction outbound --disposition answered --seconds 7 --started 2026-03-01T08:30:00Z --call-id a-1
cdrs add --tenant 1001 --extension 2001 --caller 101 --destination 00447911123456 --direction outbound --disposition answered --seconds 63 --started 2026-03-01T09:15:00.250Z --call-id a-2
cdrs add --tenant 1001 --caller 102 --destination 0088161234567 --direction outbound --disposition answered --seconds 86399 --started 2026-03-01T10:00:00Z --call-id a-3
cdrs add --tenant 1001 --caller 102 --destination 004930123456 --direction outbound --disposition answered --seconds 10 --started 2026-03-02T10:00:00Z --call-id a-4
cdrs add --tenant 1001 --caller 0014155550123 --destination 102 --direction inbound --disposition no-answer --seconds 0 --started 2026-03-02T11:30:00Z --call-id a-5
"""  # noqa: E501  # a command a line


def rewritten(document: str) -> str:
    """The document with the present output of the commands."""
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(f"sqlite:///{folder}/tollwire.db") as server,
    ):
        for line in RECORDS.splitlines():
            result = CliRunner().invoke(main, ["--server", server.address, *shlex.split(line)])
            assert result.exit_code == 0, result.output

        def shown(found: re.Match[str]) -> str:
            marker, width, command = found.groups()
            seen = on_terminal(
                shlex.split(command), int(width), TOLLWIRE_SERVER=server.address, TERM="dumb"
            )
            assert seen.exit_code == 0, seen
            return f"{marker}```\n$ tollwire {command}\n{seen.screen}{seen.errors}```\n"

        return SHOWN.sub(shown, document)


def test_the_document_has_the_output_of_the_command() -> None:
    document = PATH.read_text("utf-8")
    assert {found[2] for found in SHOWN.finditer(document)} >= {"80", "120", "200"}
    assert rewritten(document) == document, "make cli-docs updates it"


def test_there_is_a_manual_page_for_each_command(tmp_path: Path) -> None:
    count = manual.write(tmp_path)
    assert count == len(list(tmp_path.iterdir())) > 40
    page = (tmp_path / "tollwire-rates-list.1").read_text()
    assert page.startswith('.TH "TOLLWIRE-RATES-LIST" "1"')
    assert "\n.B \\-\\-limit" in page
    assert not (tmp_path / "tollwire-tokens-create.1").exists()
    top = (tmp_path / "tollwire.1").read_text()
    assert "\\-\\-ca\\-file FILE" in top
    for file in tmp_path.iterdir():
        for line in file.read_text().splitlines():
            assert re.match(r"\.(TH|SH|B|TP|PP)\b|(?!\.|')", line), (file, line)


if __name__ == "__main__":
    PATH.write_text(rewritten(PATH.read_text("utf-8")), "utf-8")
