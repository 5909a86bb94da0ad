from array import array
from collections.abc import Iterator
from typing import Any

from typing_extensions import disjoint_base

from .records import Records

ROW_FIELDS: tuple[tuple[str, int], ...]

def copy_data(
    records: Records, order: array[int], first_id: int, upload_id: int, created_at_ns: int
) -> bytes: ...
def column_arrays(data: bytes, count: int) -> list[bytes]: ...

@disjoint_base
class RowTuples(Iterator[tuple[Any, ...]]):
    def __init__(
        self, records: Records, order: array[int], upload_id: int, created_at_ns: int
    ) -> None: ...
    def __next__(self) -> tuple[Any, ...]: ...
