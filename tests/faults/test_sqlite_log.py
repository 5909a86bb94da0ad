"""A server whose SQLite log is deleted, stopped and killed: no call is acknowledged and lost."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest

from tests.integration.client import Client, make_call, refusal_of
from tests.integration.serving import ServerProcess

WAIT = {"TOLLWIRE_DATABASE_WAIT_SECONDS": "0.5"}
CALLS = 10


def record(client: Client, tenant_id: int, first: int) -> list[str]:
    """The ids of the calls that were acknowledged."""
    acknowledged = []
    for number in range(first, first + CALLS):
        try:
            cdr = client.create_cdr(make_call(tenant_id, call_id=f"call {number}"))
        except grpc.RpcError as error:
            found = refusal_of(error)
            assert found.code in (
                grpc.StatusCode.UNAVAILABLE,
                grpc.StatusCode.FAILED_PRECONDITION,
            ), found
            assert found.reason in ("DATABASE_UNAVAILABLE", "DATABASE_UNUSABLE")
        else:
            acknowledged.append(cdr.call_id)
    return acknowledged


@pytest.mark.parametrize(
    "workers, ends", [(1, ["-wal"]), (1, ["-shm"]), (2, ["-wal"]), (2, ["-wal", "-shm"])]
)
def test_no_call_is_acknowledged_into_a_deleted_log(
    tmp_path: Path, workers: int, ends: list[str]
) -> None:
    file = tmp_path / "calls.db"
    server = ServerProcess(f"sqlite:///{file}", workers=workers, **WAIT)
    with server, Client(server.address) as client:
        tenant_id = client.new_tenant().id
        before = record(client, tenant_id, 0)
        for end in ends:
            file.with_name(file.name + end).unlink()
        after = record(client, tenant_id, CALLS)
        assert server.terminate() == 0
        assert ": defect" not in server.log(), server.log()
    assert (len(before), after) == (CALLS, [])
    assert recorded(file, tenant_id) == set(before)


def recorded(file: Path, tenant_id: int) -> set[str]:
    server = ServerProcess(f"sqlite:///{file}")
    with server, Client(server.address) as client:
        assert record(client, tenant_id, 2 * CALLS), "it records again"
        found = {cdr.call_id for cdr in client.list_cdrs(tenant_id=tenant_id)}
    return {one for one in found if int(one.removeprefix("call ")) < 2 * CALLS}
