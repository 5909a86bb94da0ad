"""Sends a rate deck from a CSV file to the server, in one import.

The server imports a deck as a whole or not at all. The command reads the whole file before it sends
anything, so it knows the number of rates and whether all rows can be read. If some cannot, it sends
the others as a dry run, and one report has the errors of both.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import IO, BinaryIO

from rich.progress import Progress

from tollwire.service.cli.connection import Client
from tollwire.service.cli.deck_csv import DeckFile
from tollwire.v1.rating_service_pb2 import ImportError as DeckError
from tollwire.v1.rating_service_pb2 import ImportRatesRequest, ImportRatesResponse

RATES_A_MESSAGE = 5_000
KEPT_PROBLEMS = 1_000
_SIZE = struct.Struct("<I")


# An import ends at this number of errors.
_MOST_ERRORS = 1000


@dataclass(frozen=True, slots=True)
class Problem:
    """One error of one line of the file."""

    line: int
    field: str
    message: str

    def __str__(self) -> str:
        what = f"{self.field}: {self.message}" if self.field else self.message
        return f"line {self.line}: {what}"


@dataclass(slots=True)
class Outcome:
    """The outcome of an import. ``unreadable`` counts the rows that were not sent."""

    response: ImportRatesResponse
    problems: list[Problem]
    unreadable: int

    @property
    def rejected(self) -> int:
        return self.response.rejected + self.unreadable

    @property
    def is_cut(self) -> bool:
        """Whether the server has checked no more rates because it had found enough errors."""
        return len(self.response.errors) >= _MOST_ERRORS


@dataclass(slots=True)
class SpooledDeck:
    """A deck that was read completely from a file, ready to send. ``spool``: its messages;
    ``lines``: the line of each rate; ``unreadable``: the number of rows that could not be read;
    ``problems``: the first of their errors."""

    spool: IO[bytes]
    lines: array[int] = field(default_factory=lambda: array("Q"))
    unreadable: int = 0
    problems: list[Problem] = field(default_factory=list)

    def requests(self, head: ImportRatesRequest) -> Iterator[ImportRatesRequest]:
        """The messages of the deck; each repeats ``head``. The first has the total number of rates,
        so that the server does not import an incomplete deck."""
        self.spool.seek(0)
        for number in count():
            size = self.spool.read(_SIZE.size)
            if not size:
                return
            request = ImportRatesRequest.FromString(self.spool.read(*_SIZE.unpack(size)))
            request.MergeFrom(head)
            if number == 0:
                request.rate_count = len(self.lines)
            yield request


def read_deck(
    stream: BinaryIO, spool: IO[bytes], progress: Progress, *, multiline: bool = False
) -> SpooledDeck:
    """Read a whole file, and write its messages to ``spool``."""
    task = progress.add_task("reading", total=_size(stream), records="")
    deck = SpooledDeck(spool)
    part = ImportRatesRequest()

    def flush() -> None:
        data = part.SerializeToString()
        spool.write(_SIZE.pack(len(data)) + data)
        part.Clear()

    for line, rate in DeckFile(stream, multiline=multiline):
        if isinstance(rate, str):
            deck.unreadable += 1
            if len(deck.problems) < KEPT_PROBLEMS:
                deck.problems.append(Problem(line, "", rate))
            continue
        part.rates.append(rate)
        deck.lines.append(line)
        if len(part.rates) == RATES_A_MESSAGE:
            flush()
            done = stream.tell() if stream.seekable() else None
            progress.update(task, completed=done, records=f"{len(deck.lines):,} rates")
    flush()
    progress.update(task, description="server is checking", total=None)
    return deck


def send_deck(client: Client, deck: SpooledDeck, head: ImportRatesRequest) -> Outcome:
    """Import a deck with the options in ``head``. If rows could not be read, this is a dry run that
    reports the other errors."""
    if deck.unreadable:
        complete, head = head, ImportRatesRequest()
        head.CopyFrom(complete)
        head.dry_run = head.allow_gap = True
    response = client.import_rates(deck.requests(head))
    problems = deck.problems + [_problem(deck, error) for error in response.errors]
    problems.sort(key=lambda problem: problem.line)
    return Outcome(response, problems, deck.unreadable)


def _problem(deck: SpooledDeck, error: DeckError) -> Problem:
    """An error of the server, with the line in the file instead of the index."""
    message = error.message
    if error.HasField("first_index"):
        line = deck.lines[error.first_index]
        message = f"has the same prefix and effective_from as line {line}; remove one of them"
    return Problem(deck.lines[error.index], error.field, message)


def _size(stream: BinaryIO) -> int | None:
    """The size in bytes; None if unknown."""
    if not stream.seekable():
        return None
    here = stream.tell()
    try:
        size = stream.seek(0, 2)
    except OSError:  # a device
        return None
    stream.seek(here)
    return size
