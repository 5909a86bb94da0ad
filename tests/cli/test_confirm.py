"""Commands that take something back ask on a terminal, and nowhere else."""

from __future__ import annotations

import pytest
from click.exceptions import Exit

from service.cli import confirm as confirming
from service.cli.confirm import asks, confirm


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
def test_who_is_asked(
    monkeypatch: pytest.MonkeyPatch, stdin: bool, stderr: bool, yes: bool, asked: bool
) -> None:
    monkeypatch.setattr("sys.stdin", Terminal(stdin))
    monkeypatch.setattr("sys.stderr", Terminal(stderr))
    questions: list[str] = []

    def refuse(question: str, **_: object) -> bool:
        questions.append(question)
        return False

    monkeypatch.setattr(confirming.click, "confirm", refuse)
    assert asks(yes=yes) is asked
    if asked:
        with pytest.raises(Exit) as left:
            confirm("Reverse?", yes=yes)
        assert left.value.exit_code == 1
    else:
        confirm("Reverse?", yes=yes)
    assert questions == (["Reverse?"] if asked else [])
