from collections.abc import Sequence
from typing import Any, Self, final

from ..deck.builder import DeckBuilder

RATE_ROW_FIELDS: tuple[tuple[str, int], ...]
OPEN_FROM_S: int
OPEN_TO_S: int

@final
class RateRows:
    def __new__(cls, builder: DeckBuilder | None = None) -> Self: ...
    def read(self, part: bytes | Sequence[tuple[Any, ...]]) -> list[tuple[int, DeckBuilder]]: ...
    def end(self) -> list[tuple[int, DeckBuilder]]: ...
