"""Identity (rating rule 10): one call is recorded once, by whichever way it is sent and sent again.

Twice in a chunk, in two chunks, in two uploads, by CreateCdr and UploadCdrs in both orders, through
one server process and through two: the outcome is the same.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import pytest

from tests.integration.client import (
    BUSY,
    INBOUND,
    NOON_NS,
    SECOND_NS,
    Client,
    chunk,
    make_call,
    refusal_of,
    timestamp,
)
from tests.integration.serving import ServerProcess, serving
from tests.integration.uploading import counts
from tollwire.v1 import cdr_service_pb2 as cdr_pb
from tollwire.v1 import types_pb2 as types


@pytest.fixture(scope="module")
def second_client(server: ServerProcess) -> Iterator[Client]:
    """A connection to another server process over the database of ``client``."""
    with serving(server.database_url) as other, Client(other.address) as connected:
        yield connected


@dataclass
class Told:
    """The outcome for the sender of the second call: ``conflict`` is "" or the message, which names
    the recorded CDR and the fields that differ."""

    created: int
    duplicates: int
    conflict: str = ""
    upload_id: int = 0


# Records the first call through one connection, and the second through another.
Way = Callable[[Client, Client, types.Call, types.Call], Told]


def told_by(answer: cdr_pb.UploadCdrsResponse, *, before: int) -> Told:
    """``before``: the number of calls of the answered chunk created before the second call."""
    created, duplicates, conflicts, rejected, _ = counts(answer)
    assert (conflicts, rejected) == (len(answer.failures), 0)
    for failure in answer.failures:
        assert failure.reason == "CDR_CONFLICT"
    conflict = answer.failures[0].message if answer.failures else ""
    return Told(created - before, duplicates, conflict, answer.upload_id)


def in_one_chunk(first: Client, _: Client, call: types.Call, again: types.Call) -> Told:
    [answer] = first.upload(chunk([call, again]))
    return told_by(answer, before=1)


def in_two_chunks(first: Client, second: Client, call: types.Call, again: types.Call) -> Told:
    [begun] = first.upload(chunk([call]))
    [answer] = second.upload(chunk([again], 1, begun.upload_id))
    return told_by(answer, before=0)


def in_two_uploads(first: Client, second: Client, call: types.Call, again: types.Call) -> Told:
    first.upload(chunk([call]))
    [answer] = second.upload(chunk([again]))
    return told_by(answer, before=0)


def uploaded_after_created(
    first: Client, second: Client, call: types.Call, again: types.Call
) -> Told:
    first.create_cdr(call)
    [answer] = second.upload(chunk([again]))
    return told_by(answer, before=0)


def created_after_uploaded(
    first: Client, second: Client, call: types.Call, again: types.Call
) -> Told:
    first.upload(chunk([call]))
    return created_twice(second, second, call, again, given=True)


def created_twice(
    first: Client, second: Client, call: types.Call, again: types.Call, *, given: bool = False
) -> Told:
    if not given:
        first.create_cdr(call)
    known = {cdr.id for cdr in second.list_cdrs(tenant_id=call.tenant_id)}
    try:
        cdr = second.create_cdr(again)
    except grpc.RpcError as error:
        refusal = refusal_of(error)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.ALREADY_EXISTS, "CDR_CONFLICT")
        named = refusal.metadata["fields"].split(",")
        assert f"CDR {refusal.metadata['cdr_id']} " in refusal.message
        assert f"(different: {', '.join(named)})" in refusal.message
        return Told(0, 0, refusal.message)
    assert cdr == second.get_cdr(cdr.id)
    return Told(cdr.id not in known, cdr.id in known)


WAYS: list[Way] = [
    in_one_chunk,
    in_two_chunks,
    in_two_uploads,
    uploaded_after_created,
    created_after_uploaded,
    created_twice,
]


@pytest.fixture(params=WAYS, ids=lambda way: way.__name__)
def way(request: pytest.FixtureRequest) -> Way:
    found: Way = request.param
    return found


@pytest.fixture(params=["one process", "two processes"])
def sender(request: pytest.FixtureRequest, client: Client) -> Client:
    """The connection for the second call."""
    if request.param == "one process":
        return client
    second: Client = request.getfixturevalue("second_client")
    return second


def full_call(tenant_id: int, call_id: str, **fields: Any) -> types.Call:
    values: dict[str, Any] = {
        "caller_number": "101",
        "ended_at": NOON_NS + 7 * SECOND_NS,
        "call_id": call_id,
    }
    return make_call(tenant_id, "4420", 7, **(values | fields))


@pytest.mark.parametrize("call_id", ["given", ""], ids=["given", "derived"])
def test_the_same_content_is_a_duplicate(
    client: Client, sender: Client, payer: int, way: Way, call_id: str
) -> None:
    call = full_call(payer, call_id)
    again = types.Call()
    again.CopyFrom(call)
    again.ClearField("duration_seconds")  # 7 seconds, too
    assert way(client, sender, call, again) == Told(0, 1, upload_id=ANY)
    [stored] = client.list_cdrs(tenant_id=payer)
    assert sender.create_cdr(again) == stored
    assert sender.create_cdr(full_call(payer, stored.call_id)) == stored


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({"duration_seconds": 8}, "duration_seconds"),
        ({"direction": INBOUND}, "direction"),
        (
            {
                "extension_id": "own",
                "caller_number": "102",
                "destination_number": "4421",
                "direction": INBOUND,
                "disposition": BUSY,
                "duration_seconds": 9,
                "started_at": timestamp(NOON_NS + 1),
                "ended_at": timestamp(NOON_NS + 7 * SECOND_NS + 1),
            },
            "extension_id, caller_number, destination_number, direction, disposition,"
            " duration_seconds, started_at, ended_at",
        ),
    ],
    ids=["one", "another", "all"],
)
def test_other_content_is_a_conflict(
    client: Client, sender: Client, payer: int, way: Way, changes: dict[str, Any], fields: str
) -> None:
    call = full_call(payer, "x")
    if "extension_id" in changes:
        changes = changes | {"extension_id": client.new_extension(payer).id}
    again = types.Call()
    again.CopyFrom(call)
    again.MergeFrom(types.Call(**changes))
    told = way(client, sender, call, again)
    assert (told.created, told.duplicates) == (0, 0)
    [stored] = client.list_cdrs(tenant_id=payer)
    assert f"CDR {stored.id} " in told.conflict
    assert f"(different: {fields})" in told.conflict
    # The first one is recorded, and stays so.
    assert client.create_cdr(call) == stored
    assert sender.get_cdr(stored.id) == stored
    if told.upload_id:
        request = cdr_pb.ListUploadFailuresRequest(upload_id=told.upload_id)
        [kept] = sender.cdrs.ListUploadFailures(request).failures
        assert (kept.reason, kept.message, kept.call) == ("CDR_CONFLICT", told.conflict, again)
        assert sender.get_upload(told.upload_id).conflicts == 1


def test_without_an_id_other_content_is_another_call(
    client: Client, sender: Client, payer: int, way: Way
) -> None:
    told = way(client, sender, full_call(payer, ""), full_call(payer, "", caller_number="102"))
    assert told == Told(1, 0, upload_id=ANY)
    stored = client.list_cdrs(tenant_id=payer)
    assert len({cdr.call_id for cdr in stored}) == 2
    # A derived call_id is an ordinary one: sent with other content it is a conflict.
    own = {cdr.caller_number: cdr.call_id for cdr in stored}
    [answer] = sender.upload(chunk([full_call(payer, own["101"], caller_number="102")]))
    assert counts(answer) == (0, 0, 1, 0, 0)


def test_a_call_id_belongs_to_its_tenant(
    client: Client, sender: Client, payer: int, way: Way
) -> None:
    other = client.new_tenant().id
    told = way(client, sender, full_call(payer, "x"), full_call(other, "x"))
    assert told == Told(1, 0, upload_id=ANY)
    assert len(client.list_cdrs(tenant_id=payer)) == len(client.list_cdrs(tenant_id=other)) == 1


def test_two_processes_record_one_of_two_at_the_same_moment(
    client: Client, second_client: Client, payer: int
) -> None:
    """Both sides send the same calls and as many that differ, one by one and in chunks: each call
    is recorded once, the created ones add up to the recorded ones, and every conflict names the
    recorded CDR."""
    shared = [full_call(payer, f"same {n}") for n in range(40)]
    sides = (client, second_client)
    own = [
        [full_call(payer, f"own {n}", caller_number=f"{side}") for n in range(40)]
        for side in range(2)
    ]
    barrier = threading.Barrier(2)
    answers: list[list[cdr_pb.UploadCdrsResponse]] = [[], []]
    refused: list[list[str]] = [[], []]

    def record(side: int) -> None:
        calls = [*shared, *own[side]][:: -1 if side else 1]
        for begin in range(0, len(calls), 20):
            part = calls[begin : begin + 20]
            barrier.wait(30)
            answers[side] += sides[side].upload(chunk(part[:10]))
            for call in part[10:]:
                try:
                    sides[side].create_cdr(call)
                except grpc.RpcError as error:
                    refused[side].append(refusal_of(error).metadata["cdr_id"])

    threads = [threading.Thread(target=record, args=(side,)) for side in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    stored = client.list_cdrs(tenant_id=payer, page_size=1000)
    assert len(stored) == len({cdr.call_id for cdr in stored}) == 80
    created = sum(answer.created for side in answers for answer in side)
    by_upload = {cdr.id for cdr in stored if cdr.upload_id}
    assert created == len(by_upload)
    failures = [one for side in answers for answer in side for one in answer.failures]
    # Of each of the 40 that differ one side's is recorded, and the other side gets a conflict.
    assert len(failures) + sum(map(len, refused)) == 40
    ids = {cdr.call_id: cdr.id for cdr in stored}
    for failure in failures:
        assert f"CDR {ids[failure.call_id]} with other content" in failure.message
    assert {int(cdr_id) for side in refused for cdr_id in side} <= set(ids.values())


class _Any:
    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 0


ANY: Any = _Any()
