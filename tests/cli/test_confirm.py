"""Commands that destroy data ask for confirmation on a terminal, and only there."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.exceptions import Exit

from tests.cli.conftest import Tollwire
from tests.cli.fake import FakeServer
from tollwire.service.cli import confirm as confirming
from tollwire.service.cli.confirm import confirm, is_asking


class Terminal:
    def __init__(self, is_terminal: bool) -> None:
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        pass


@pytest.mark.parametrize(
    ("stdin", "stderr", "yes", "asked"),
    [
        (True, True, False, True),
        (True, True, True, False),
        (False, True, False, False),
        (True, False, False, False),
    ],
)
def test_a_confirmation_is_asked_for_on_a_terminal_only(
    monkeypatch: pytest.MonkeyPatch, stdin: bool, stderr: bool, yes: bool, asked: bool
) -> None:
    monkeypatch.setattr("sys.stdin", Terminal(stdin))
    monkeypatch.setattr("sys.stderr", Terminal(stderr))
    questions: list[str] = []

    def refuse(question: str, **_: object) -> bool:
        questions.append(question)
        return False

    monkeypatch.setattr(click, "confirm", refuse)
    assert is_asking(yes=yes) is asked
    if asked:
        with pytest.raises(Exit) as left:
            confirm("Reverse?", yes=yes)
        assert left.value.exit_code == 1
    else:
        confirm("Reverse?", yes=yes)
    assert questions == (["Reverse?"] if asked else [])


@pytest.mark.parametrize(
    "command",
    [
        ("rates", "delete", "1"),
        ("extensions", "delete", "1"),
        ("tenants", "delete", "1"),
        ("tokens", "revoke", "1"),
        ("rates", "import", "DECK", "--tenant", "1", "--mode", "replace"),
    ],
)
def test_destructive_commands_ask_on_a_terminal(
    command: tuple[str, ...],
    tollwire: Tollwire,
    fake: FakeServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    deck = tmp_path / "deck.csv"
    deck.write_text("prefix,destination,cost_per_minute,billing_increment\n44,UK,0.02,6\n")
    arguments = [str(deck) if word == "DECK" else word for word in command]
    monkeypatch.setattr(confirming, "is_asking", lambda *, yes: not yes)
    declined = tollwire(*arguments, input="n\n")
    assert declined.exit_code == 1
    assert "nothing was changed" in declined.stderr
    assert not fake.rating.requests
    accepted = tollwire(*arguments, "--yes")
    assert "[y/N]" not in accepted.stderr
    assert "nothing was changed" not in accepted.stderr
