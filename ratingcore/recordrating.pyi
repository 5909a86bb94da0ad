from array import array
from collections.abc import Mapping

from .deck import Deck
from .records import Records
from .tally import Tally

def rate_records(records: Records, order: array[int], decks: Mapping[int, Deck]) -> None: ...
def count_outcomes(records: Records, positions: array[int]) -> Tally: ...
