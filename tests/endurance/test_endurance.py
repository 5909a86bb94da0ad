"""The short forms of ``make rolling`` and ``make overload``."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.endurance.holding import holding
from tests.endurance.overload import overload
from tests.endurance.rolling import roll
from tests.endurance.tokens import first_token
from tests.rpc.transports import TRANSPORTS


def test_a_rolling_restart_loses_no_call(tmp_path: Path) -> None:
    totals = roll(f"sqlite:///{tmp_path / 'tollwire.db'}", restarts=2)
    assert totals.passed, totals


def test_overload_is_refused_and_other_clients_are_served(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'tollwire.db'}"
    figures = overload(url, seconds=3, first_token=first_token(url))
    assert figures.passed, figures


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_clients_that_hold_streams_do_not_stop_others(tmp_path: Path, transport: str) -> None:
    url = f"sqlite:///{tmp_path / 'tollwire.db'}"
    figures = holding(
        url,
        first_token=first_token(url),
        max_streams=8,
        wait_seconds=2,
        TOLLWIRE_TRANSPORT=transport,
    )
    assert figures.passed, figures
