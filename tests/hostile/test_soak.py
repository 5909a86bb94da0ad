"""The short form of "make soak", and whether it would detect growth."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.hostile.soak import MOST, WORK, Outcome, Sample, soaked
from tests.hostile.targets import target

# Servers take long to start if others are tested at the same time.
pytestmark = pytest.mark.timeout(300)

SECONDS = 6


def test_mixed_work_does_not_grow(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'tollwire.db'}"
    with target(url, "tokens", workers=2) as asked:
        outcome = soaked(asked, SECONDS)
    assert outcome.failures == {}
    assert outcome.problems == []
    assert outcome.grown() == []
    assert set(outcome.done) == set(WORK)
    assert outcome.passed


@pytest.mark.parametrize("name", MOST)
def test_growth_is_detected(name: str) -> None:
    outcome = Outcome(1.0)
    outcome.done["RateCall"] = 1
    for number in range(90):
        sample = Sample(float(number), 100, 100, 100)
        outcome.samples.append(sample)
    assert outcome.passed
    for number, sample in enumerate(outcome.samples):
        setattr(sample, name, 100 + 2 * MOST[name] * number // 90)
    assert [text.partition(" ")[0] for text in outcome.grown()] == [name]
    assert not outcome.passed
