"""How many examples a Hypothesis test tries: a tenth with TOLLWIRE_TEST_EXAMPLES=quick."""

from __future__ import annotations

import os

from hypothesis import settings

_DIVISOR = 10 if os.environ.get("TOLLWIRE_TEST_EXAMPLES") == "quick" else 1


def examples(count: int) -> settings:
    """Settings with ``count`` examples, or a tenth of them, and no deadline."""
    return settings(max_examples=max(1, count // _DIVISOR), deadline=None)
