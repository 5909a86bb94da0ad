from array import array
from collections.abc import Collection

from .records import Records

def in_key_order(records: Records, unknown: Collection[tuple[int, int]] = ()) -> array[int]: ...
def split(
    records: Records, order: array[int], recorded: Collection[tuple[int, str]] = ()
) -> tuple[array[int], array[int], array[int]]: ...
