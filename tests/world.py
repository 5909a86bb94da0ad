"""A whole service over one database, without the wire, for tests of its subjects."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ratingcore.record.records import records_of
from tollwire.service.accounts.tenants import Tenants
from tollwire.service.cache.decks import Decks
from tollwire.service.domain.model import (
    BadCall,
    Call,
    Direction,
    Disposition,
    Extension,
    ImportMode,
    ImportOutcome,
    ImportPlan,
    Rate,
    RateError,
    Tenant,
)
from tollwire.service.domain.record_model import ChunkResult
from tollwire.service.rating.deck_import import Intake
from tollwire.service.rating.rates import Rates
from tollwire.service.record.cdrs import Cdrs
from tollwire.service.record.recording import content_of
from tollwire.service.record.reversals import Reversals
from tollwire.service.record.upload_chunks import UploadChunk
from tollwire.service.record.uploads import Uploads
from tollwire.service.reports.usage import Usage
from tollwire.service.storage.engine import Database

SECOND_NS = 10**9
# 2026-03-02T10:00:00Z
NOON_SECONDS = 1_772_445_600
NOON_NS = NOON_SECONDS * SECOND_NS


@dataclass(frozen=True)
class World:
    """One worker: its subjects over its own connections and its own decks in memory."""

    database: Database
    decks: Decks
    tenants: Tenants
    rates: Rates
    cdrs: Cdrs
    uploads: Uploads
    usage: Usage
    reversals: Reversals

    @classmethod
    def over(cls, database: Database, decks: Decks | None = None) -> World:
        decks = decks or Decks(database)
        decks.load()
        return cls(
            database=database,
            decks=decks,
            tenants=Tenants(database, decks),
            rates=Rates(database, decks),
            cdrs=Cdrs(database, decks),
            uploads=Uploads(database, decks),
            usage=Usage(database),
            reversals=Reversals(database),
        )

    def tenant(self, **fields: Any) -> int:
        return self.tenants.create(Tenant(**({"name": "Acme"} | fields))).id

    def extension(self, tenant_id: int, number: str = "101") -> int:
        extension = Extension(tenant_id=tenant_id, number=number)
        return self.tenants.create_extension(extension).id

    def rate(
        self, tenant_id: int, prefix: str, cost_e4: int = 600, increment: int = 60, **fields: Any
    ) -> Rate:
        return self.rates.create(
            Rate(
                tenant_id=tenant_id,
                prefix=prefix,
                cost_per_minute_e8=cost_e4 * 10_000,
                billing_increment=increment,
                **fields,
            )
        )

    def commit(self, upload_id: int, offset: int, records: Sequence[Call | BadCall]) -> ChunkResult:
        return self.uploads.commit(upload_id, offset, chunk_of(records))

    def import_deck(
        self,
        tenant_id: int,
        mode: ImportMode,
        dry_run: bool,
        deck: Iterable[Rate | RateError],
        **plan: Any,
    ) -> ImportOutcome:
        """A RateError stands for a rate that could not be read."""

        def fill(intake: Intake) -> None:
            index = -1
            for item in deck:
                if isinstance(item, RateError):
                    index = item.index
                    intake.reject(item)
                else:
                    index += 1
                    intake.put(index, item)

        return self.rates.import_deck(ImportPlan(tenant_id, mode, dry_run, **plan), fill)

    def rows(self) -> list[Any]:
        """All CDRs in the table, by id."""
        with self.database.read() as connection:
            return list(connection.exec_driver_sql("SELECT * FROM cdrs ORDER BY id"))


def call(tenant_id: int, number: str = "4420", seconds: int = 7, **fields: Any) -> Call:
    """An answered outbound call at noon, unless ``fields`` say otherwise."""
    values: dict[str, Any] = {
        "direction": Direction.OUTBOUND,
        "disposition": Disposition.ANSWERED,
        "started_at_ns": NOON_NS,
    }
    return Call(
        tenant_id=tenant_id,
        destination_number=number,
        duration_seconds=seconds,
        **(values | fields),
    )


def calls(tenant_id: int, first: int, count: int, **fields: Any) -> list[Call]:
    """Calls that differ in call_id and by a nanosecond each."""
    return [
        call(tenant_id, call_id=f"c{index}", started_at_ns=NOON_NS + index, **fields)
        for index in range(first, first + count)
    ]


def chunk_of(records: Sequence[Call | BadCall]) -> UploadChunk:
    return UploadChunk(
        records_of(content_of(one) if isinstance(one, Call) else None for one in records),
        {at: one for at, one in enumerate(records) if isinstance(one, BadCall)},
    )


def at_once(*actions: Callable[[], Any]) -> list[Any]:
    """Run the actions at the same moment, each in a thread; their results, or their exceptions."""
    results: list[Any] = [None] * len(actions)
    barrier = threading.Barrier(len(actions))

    def run(index: int) -> None:
        try:
            barrier.wait(20)
            results[index] = actions[index]()
        except Exception as error:
            results[index] = error

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(actions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "an action hangs"
    return results


def in_parts(items: Sequence[Any], size: int) -> list[Sequence[Any]]:
    return [items[at : at + size] for at in range(0, len(items), size)]
