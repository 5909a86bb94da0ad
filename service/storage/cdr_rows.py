"""The types of CDR rows that are written and read in bulk.

A row to insert begins with the content of the call, then its outcome. Only the content is compared
to tell a duplicate from a conflict (rating rule 10). The rating core makes the rows; ROW_FIELDS is
the order of their values. Must not contain queries.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

from ratingcore.record.values import Content, RecordOutcome

T_co = TypeVar("T_co", covariant=True)
Key = tuple[int, str]  # tenant_id, call_id

ROW_FIELDS = (*Content._fields, *RecordOutcome._fields, "upload_id", "created_at_ns", "generation")


class NewRows(Protocol):
    """Rows to insert, in key order; each key occurs once."""

    def __len__(self) -> int: ...

    def keys(self) -> Iterator[Key]: ...

    def shared_fields(self) -> tuple[str, ...]:
        """Fields that have the same value in all rows, in the order of ROW_FIELDS."""

    def tuples(
        self, begin: int, end: int, rows_each: int, shared: Collection[str]
    ) -> Iterable[tuple[Any, ...]]:
        """The rows from position ``begin`` until before ``end``, ``rows_each`` of them in each
        tuple: first the values of the fields ``shared``, which are of ``shared_fields``, and then
        those of the other ROW_FIELDS of each row."""

    def copy_data(self, first_id: int) -> bytes:
        """The values of ROW_FIELDS of each row after an id, which rises from ``first_id`` on, as
        PostgreSQL's binary COPY data: integers as wide as their columns."""

    def column_arrays(self, first_id: int) -> Sequence[bytes]:
        """The same as PostgreSQL's binary arrays, one for each column."""

    def without(self, keys: Collection[Key]) -> NewRows:
        """The rows whose key is not in ``keys``."""

    def following(self, generations: Mapping[Key, int]) -> None:
        """Give each row the generation after that of its key."""


class RowReader(Protocol[T_co]):
    """Converts rows that are read in bulk."""

    def copy(self, data: bytes) -> T_co:
        """Converts PostgreSQL's binary COPY data."""

    def tuples(self, rows: Iterable[tuple[Any, ...]]) -> T_co:
        """Converts tuples. The database reads each when it is taken."""


class Recorded(NamedTuple):
    """A recorded call: the newest generation of its key."""

    cdr_id: int
    content: Content
    generation: int
    is_reversed: bool
