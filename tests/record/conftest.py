"""Fixtures for the tests of the record."""

from __future__ import annotations

import pytest

from tollwire.service.record import reversal_parts


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reversals in parts of 7 CDRs, or of 3 chunks of an upload."""
    monkeypatch.setattr(reversal_parts, "PART_CDRS", 7)
    monkeypatch.setattr(reversal_parts, "PART_CHUNKS", 3)
