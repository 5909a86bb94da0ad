from array import array
from collections.abc import Mapping

from ..deck.deck import Deck
from ..wire.tally import Tally
from .records import Records

def rate_records(records: Records, order: array[int], decks: Mapping[int, Deck]) -> None: ...
def count_outcomes(records: Records, positions: array[int]) -> Tally: ...
