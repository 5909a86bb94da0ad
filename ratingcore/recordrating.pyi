from array import array
from collections.abc import Mapping

from .deck import Deck
from .records import Records

def rate_records(records: Records, order: array[int], decks: Mapping[int, Deck]) -> None: ...
def unrated_count(records: Records, positions: array[int]) -> int: ...
