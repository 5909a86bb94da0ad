"""Fuzzing without a guide: valid messages, truncated at every byte, and mutated repeatedly.

It needs only the target, so it also runs in CI. The seed determines its inputs.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Iterator

from tests.fuzz.agreement import Target
from tests.fuzz.mutations import mutate

# The chance that a mutated message is not mutated again.
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
    """Check a number of inputs, or for a number of seconds."""
    end = time.monotonic() + seconds
    for data in itertools.islice(candidates(target, seed), inputs):
        check(data)
        if time.monotonic() > end:
            return


def candidates(target: Target, seed: int) -> Iterator[bytes]:
    """An endless sequence of inputs."""
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
