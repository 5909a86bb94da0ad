from collections.abc import Iterator, Sequence
from typing import Self, final

from ..deck.deck import Deck
from ..pricing.values import InEffect, RateInfo

@final
class IncomingDeck:
    def __new__(cls, tenant_id: int, effective_from: tuple[int, int] | None = None) -> Self: ...
    def __len__(self) -> int: ...
    @property
    def seen(self) -> int: ...
    @property
    def nbytes(self) -> int: ...
    def read(self, request: bytes, start: int = 0) -> tuple[list[tuple[int, bytes]], int]: ...
    def put(
        self,
        index: int,
        prefix: str,
        destination: str,
        cost_per_minute_e8: int,
        billing_increment: int,
        connect_fee_e8: int = 0,
        minimum_seconds: int = 0,
        intervals: Sequence[tuple[int, int, int]] = (),
        effective_from: tuple[int, int] | None = None,
        effective_to: tuple[int, int] | None = None,
        blocked: bool = False,
    ) -> None: ...
    def sort(self) -> None: ...
    def repeated(self) -> Iterator[tuple[int, int]]: ...
    def compare(
        self,
        base: Deck,
        *,
        replace: bool,
        closing: tuple[int, int] | None = None,
        at: tuple[int, int] = (0, 0),
    ) -> tuple[int, list[tuple[int, str]]]: ...
    @property
    def closed(self) -> list[RateInfo]: ...
    @property
    def in_effect(self) -> InEffect: ...
    def number(self, first_version_id: int) -> None: ...
    def rows(self, start: int, stop: int) -> list[RateInfo]: ...
