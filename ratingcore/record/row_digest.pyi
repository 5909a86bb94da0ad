from array import array

from .records import Records
from .stored_rows import StoredRows

FORMAT: int
HEADS: dict[int, bytes]

def digest_of_new(
    records: Records, order: array[int], first_id: int, upload_id: int, created_at_ns: int
) -> bytes: ...
def digest_of_stored(rows: StoredRows, begin: int, end: int, format: int = 2) -> bytes: ...
def set_unrated(
    records: Records, position: int, unrated_reason: int, rate_revision: int
) -> None: ...
