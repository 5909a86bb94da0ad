"""Property tests of the core assert nothing about time: a debug build or a busy machine is slow."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("patient", deadline=None)
settings.load_profile("patient")
