from array import array
from collections.abc import Collection

from .records import Key, Party, Records

def in_key_order(records: Records, unknown: Collection[Party] = ()) -> array[int]: ...
def split(
    records: Records, order: array[int], recorded: Collection[Key] = ()
) -> tuple[array[int], array[int], array[int]]: ...
