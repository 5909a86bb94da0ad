"""The program that callgrind counts: see ``benchmarks.subjects.instructions``.

``python -m benchmarks.counted FILE`` reads the rates and the columns from a file, because creating
them takes a hundred times as long under callgrind. It imports only what it needs.
"""

from __future__ import annotations

import pickle
import sys
from array import array
from pathlib import Path

from benchmarks.native import library
from ratingcore import Deck, DeckBuilder
from ratingcore.wire.rate_calls import rate_request

MAX_MESSAGE_CALLS = 1_000_000

# version_id, rate_id, prefix, destination, cost_per_minute_e8, billing_increment
Rate = tuple[int, int, str, str, int, int]
# numbers, offsets, durations, started_at_ns, billable, as Deck.rate_columns takes them
Batch = tuple[bytes, "array[int]", "array[int]", "array[int]", bytes]


def save(
    path: Path, rates: list[Rate], batches: dict[str, Batch], messages: dict[str, bytes]
) -> None:
    """``messages``: StreamRateCallsRequests."""
    path.write_bytes(pickle.dumps((rates, batches, messages)))


def streamed(deck: Deck, message: bytes) -> int:
    """Bytes of the response to a StreamRateCallsRequest in which every call has a price."""
    calls = MAX_MESSAGE_CALLS
    return len(rate_request(message, lambda tenant_id: deck, _refuse, 0, calls))


def _refuse(call: bytes) -> bytes:
    raise ValueError("a call has no price")


def main(path: str) -> None:
    rates: list[Rate]
    batches: dict[str, Batch]
    messages: dict[str, bytes]
    rates, batches, messages = pickle.loads(Path(path).read_bytes())
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
    for name, message in messages.items():
        streamed(deck, message)
        library().start_counting()
        size = streamed(deck, message)
        library().stop_counting(f"streamed call, {name}".encode())
        print(size)


if __name__ == "__main__":
    main(sys.argv[1])
