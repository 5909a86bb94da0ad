"""Fuzzing without a guide: messages that are in order, cut at every byte, and bent again and again.

It needs nothing but the target, so it also runs in CI; what it tries follows from the seed alone.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Iterator

from tests.fuzz.agreement import Target
from tests.fuzz.mutations import mutate

# A message is bent on until this chance ends it, each time from what it was before.
_ENOUGH = 0.3
_CUT_MESSAGES = 3
_CUT_BYTES = 200


def fuzz(
    target: Target,
    check: Callable[[bytes], object],
    *,
    seed: int,
    seconds: float = float("inf"),
    inputs: int | None = None,
) -> None:
    """Checks so many inputs, or for so long."""
    end = time.monotonic() + seconds
    for data in itertools.islice(candidates(target, seed), inputs):
        check(data)
        if time.monotonic() > end:
            return


def candidates(target: Target, seed: int) -> Iterator[bytes]:
    """Inputs without end."""
    draw = random.Random(f"{target.name}-{seed}")
    for _ in range(_CUT_MESSAGES):
        data = target.grammar.make(draw)[:_CUT_BYTES]
        yield from (data[:size] for size in range(len(data)))
    while True:
        data = target.grammar.make(draw)
        yield data
        while draw.random() > _ENOUGH:
            data = mutate(data, target.grammar, draw)
            yield data
