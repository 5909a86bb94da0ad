"""Shared by the tests of uploads: calls with known ids, and their recorded CDRs."""

from __future__ import annotations

from tests.integration.client import NOON_NS, Client, make_call
from tollwire.v1 import cdr_service_pb2 as cdr_pb
from tollwire.v1 import types_pb2 as types

Counts = tuple[int, int, int, int, int]


def counts(answer: cdr_pb.UploadCdrsResponse | cdr_pb.GetUploadResponse) -> Counts:
    """created, duplicates, conflicts, rejected, unrated"""
    return (
        answer.created,
        answer.duplicates,
        answer.conflicts,
        answer.rejected,
        answer.unrated,
    )


def calls_of(payer: int, first: int, count: int) -> list[types.Call]:
    return [
        make_call(payer, "4420", 7, call_id=f"c{index}", started_at=NOON_NS + index)
        for index in range(first, first + count)
    ]


def stored_call_ids(client: Client, payer: int) -> list[str]:
    """Oldest first; fails if a call is recorded twice."""
    cdrs = client.list_cdrs(tenant_id=payer, page_size=1000)
    call_ids = [cdr.call_id for cdr in reversed(cdrs)]
    assert len(set(call_ids)) == len(call_ids)
    return call_ids
