from collections.abc import Iterable, Sequence
from typing import Any, Self

from typing_extensions import disjoint_base

from .deck import Deck

@disjoint_base
class DeckBuilder:
    def __new__(cls, base: Deck | None = None) -> Self: ...
    def put(
        self,
        version_id: int,
        rate_id: int,
        prefix: str,
        destination: str,
        cost_per_minute_e8: int,
        billing_increment: int,
        connect_fee_e8: int = 0,
        minimum_seconds: int = 0,
        intervals: Sequence[tuple[int, int, int]] = (),
        effective_from_ns: int | None = None,
        effective_to_ns: int | None = None,
        blocked: bool = False,
    ) -> None: ...
    def put_many(self, rates: Iterable[Sequence[Any]]) -> None: ...
    def remove(self, version_id: int, prefix: str) -> None: ...
    def build(
        self,
        revision: int,
        rounding: int = 1,
        country_code: str = "",
        national_prefix: str = "",
        international_prefix: str = "",
        cost_decimals: int = 4,
    ) -> Deck: ...
