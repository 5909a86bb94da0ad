"""The program that callgrind counts: see ``benchmarks.subjects.instructions``.

``python -m benchmarks.counted FILE`` reads the rates and the columns from a file, because to make
them takes a hundred times as long under callgrind. It imports nothing that it does not need.
"""

from __future__ import annotations

import pickle
import sys
from array import array
from pathlib import Path

from benchmarks.native import library
from ratingcore import DeckBuilder

# version_id, rate_id, prefix, destination, cost_per_minute_e4, billing_increment
Rate = tuple[int, int, str, str, int, int]
# numbers, offsets, durations, started_at_ns, billable, as Deck.rate_columns takes them
Batch = tuple[bytes, "array[int]", "array[int]", "array[int]", bytes]


def save(path: Path, rates: list[Rate], batches: dict[str, Batch]) -> None:
    path.write_bytes(pickle.dumps((rates, batches)))


def main(path: str) -> None:
    rates: list[Rate]
    batches: dict[str, Batch]
    rates, batches = pickle.loads(Path(path).read_bytes())
    builder = DeckBuilder()
    for rate in rates:
        builder.put(*rate)
    deck = builder.build(1)
    for name, batch in batches.items():
        numbers, offsets, _, started_at_ns, _ = batch
        for work, ask in (
            ("look-up", lambda: deck.match_columns(numbers, offsets, started_at_ns)),  # noqa: B023
            ("look-up and charge", lambda: deck.rate_columns(*batch)),  # noqa: B023
        ):
            ask()
            library().start_counting()
            found = ask()
            library().stop_counting(f"{work}, {name}".encode())
            print(sum(found.prefix_length))


if __name__ == "__main__":
    main(sys.argv[1])
