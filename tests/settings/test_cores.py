"""The number of cores that the server may use: the default of --workers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tollwire.service.settings.config import MAX_WORKERS, Settings
from tollwire.service.settings.cores import available_cores


@pytest.fixture
def bound_to_eight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))


@pytest.mark.usefixtures("bound_to_eight")
@pytest.mark.parametrize(
    ("text", "cores"),
    [
        ("max 100000", 8),
        ("100000 100000", 1),
        ("250000 100000", 3),
        ("1000 100000", 1),
        ("2000000 100000", 8),
        ("", 8),
        ("100 0", 8),
        ("x y", 8),
        ("1 2 3", 8),
    ],
)
def test_the_limit_of_a_container(tmp_path: Path, text: str, cores: int) -> None:
    file = tmp_path / "cpu.max"
    file.write_text(text)
    assert available_cores(file) == cores


@pytest.mark.usefixtures("bound_to_eight")
def test_without_a_control_group(tmp_path: Path) -> None:
    assert available_cores(tmp_path / "none") == 8


def test_the_processors_of_this_process() -> None:
    assert 1 <= available_cores() <= len(os.sched_getaffinity(0))


def test_auto_is_the_default_and_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    url = "postgresql+psycopg://u@h/x"
    monkeypatch.setattr("tollwire.service.settings.config.available_cores", lambda: 3)
    assert Settings(database=url).workers == 3
    assert Settings(database=url, workers="auto").workers == 3
    # On SQLite workers take turns to write.
    assert Settings().workers == Settings(workers="auto").workers == 1
    monkeypatch.setattr("tollwire.service.settings.config.available_cores", lambda: 1000)
    assert Settings(database=url).workers == MAX_WORKERS
    assert Settings(database=url, workers=2).workers == 2
