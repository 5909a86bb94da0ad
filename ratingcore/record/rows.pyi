from array import array
from collections.abc import Collection, Iterator
from typing import Any

from typing_extensions import disjoint_base

from .records import Records

ROW_FIELDS: tuple[tuple[str, int], ...]
SHAREABLE_FIELDS: tuple[str, ...]

def copy_data(
    records: Records, order: array[int], first_id: int, upload_id: int, created_at_ns: int
) -> bytes: ...
def column_arrays(data: bytes, count: int) -> list[bytes]: ...
def shared_fields(records: Records, order: array[int]) -> tuple[str, ...]: ...

@disjoint_base
class RowTuples(Iterator[tuple[Any, ...]]):
    def __init__(
        self,
        records: Records,
        order: array[int],
        upload_id: int,
        created_at_ns: int,
        rows_each: int = 1,
        shared: Collection[str] = (),
    ) -> None: ...
    def __next__(self) -> tuple[Any, ...]: ...
