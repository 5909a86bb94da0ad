from typing import Any, Self, final

from .incoming_deck import IncomingDeck

OPEN_FROM_S: int
OPEN_TO_S: int
RATE_ROW_FIELDS: tuple[tuple[str, int], ...]
HISTORY_FIELDS: tuple[str, ...]

@final
class RateRowWriter:
    def __init__(
        self, deck: IncomingDeck, revision: int, created_at_ns: dict[int, int], now_ns: int
    ) -> None: ...
    def __len__(self) -> int: ...
    def copy_part(self) -> bytes: ...
    def __iter__(self) -> Self: ...
    def __next__(self) -> tuple[Any, ...]: ...
