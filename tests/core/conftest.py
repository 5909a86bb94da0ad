"""Property tests of the core have no deadline: a debug build or a busy machine is slow."""

from __future__ import annotations

from hypothesis import settings

from tests.examples import examples

# The examples of a test without a count of its own: Hypothesis' default, or a tenth of it.
settings.register_profile("patient", examples(settings.default.max_examples))
settings.load_profile("patient")
