"""The rows of CDRs as they are written in bulk and compared.

A row to insert begins with the call's content and ends with its outcome; what is compared to tell a
duplicate from a conflict is the content alone (rating rule 10). The rating core makes the rows;
what is in them is agreed on in ROW_FIELDS. No queries here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol, TypeVar

from ratingcore.record.values import Content, RecordOutcome

T_co = TypeVar("T_co", covariant=True)
Key = tuple[int, str]  # tenant_id, call_id

ROW_FIELDS = (*Content._fields, *RecordOutcome._fields, "upload_id", "created_at_ns", "generation")


class NewRows(Protocol):
    """Rows to insert, in key order and no key twice."""

    def __len__(self) -> int: ...

    def keys(self) -> Iterator[Key]: ...

    def tuples(self) -> Iterable[tuple[Any, ...]]:
        """The values of ROW_FIELDS of each."""

    def copy_data(self, first_id: int) -> bytes:
        """The same, behind ids from ``first_id`` on, as PostgreSQL's binary COPY data: integers as
        wide as their columns."""

    def without(self, keys: Collection[Key]) -> NewRows:
        """Those whose key is not among ``keys``."""

    def following(self, generations: Mapping[Key, int]) -> None:
        """From here on each row is of the generation after the one that its key has there."""


class RowReader(Protocol[T_co]):
    """Makes something of rows that are read in bulk."""

    def copy(self, data: bytes) -> T_co:
        """Of PostgreSQL's binary COPY data, as a whole."""

    def tuples(self, rows: Iterable[tuple[Any, ...]]) -> T_co:
        """Of tuples, each of which is read when it is taken."""


class Recorded(NamedTuple):
    """A call as it is recorded: the newest generation of its key."""

    cdr_id: int
    content: Content
    generation: int
    is_reversed: bool
