"""Runs an attempt once for each of its allocations, and lets that allocation fail."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from ratingcore.base.memory import fail_allocation

Result = TypeVar("Result")

MAX_ALLOCATIONS = 10_000


def each_allocation_fails(attempt: Callable[[], Result]) -> tuple[Result, int]:
    """The result of the first attempt in which no allocation fails, and the count of failures.

    A failed allocation must raise MemoryError, and at least one must fail.
    """
    try:
        for count in range(MAX_ALLOCATIONS):
            fail_allocation(count)
            try:
                result = attempt()
            except MemoryError:
                assert fail_allocation(None) == -1, "MemoryError without a failed allocation"
            else:
                assert fail_allocation(None) >= 0, "an allocation failed without MemoryError"
                assert count > 0, "no allocation failed"
                return result, count
    finally:
        fail_allocation(None)
    raise AssertionError(f"the attempt has more than {MAX_ALLOCATIONS} allocations")
