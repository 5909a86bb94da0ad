"""Puts rates together to the messages of ImportRates."""

from __future__ import annotations

from collections.abc import Iterator

from tollwire.v1.rating_service_pb2 import ImportRatesRequest
from tollwire.v1.types_pb2 import Rate

RATES_A_MESSAGE = 1_000
MAX_MESSAGE_BYTES = 1024 * 1024


class DeckMessages:
    """The messages of one deck. ``head`` has the fields of the first message. The last message has
    the number of rates, unless the caller gives it: an incomplete deck is never imported."""

    def __init__(self, head: ImportRatesRequest) -> None:
        self._part = ImportRatesRequest()
        self._part.CopyFrom(head)
        self._bytes = 0
        self._count = len(head.rates)
        self._is_first = True
        self._has_count = head.HasField("rate_count")

    def add(self, item: Rate | ImportRatesRequest) -> Iterator[ImportRatesRequest]:
        """The messages that are complete with a further rate, or a message of rates, which is sent
        as it is."""
        if isinstance(item, ImportRatesRequest):
            if self._is_first and not self._part.rates:
                self._part.MergeFrom(item)
            else:
                if self._part.rates:
                    yield self._take()
                self._part.CopyFrom(item)
            self._count += len(item.rates)
            self._has_count = self._has_count or item.HasField("rate_count")
            yield self._take()
            return
        self._part.rates.append(item)
        self._count += 1
        self._bytes += item.ByteSize()
        if len(self._part.rates) == RATES_A_MESSAGE or self._bytes > MAX_MESSAGE_BYTES:
            yield self._take()

    def end(self) -> Iterator[ImportRatesRequest]:
        """The last message."""
        if not self._has_count:
            self._part.rate_count = self._count
        if self._is_first or self._part.ByteSize():
            yield self._take()

    def _take(self) -> ImportRatesRequest:
        taken = self._part
        self._part = ImportRatesRequest()
        self._bytes = 0
        self._is_first = False
        return taken
