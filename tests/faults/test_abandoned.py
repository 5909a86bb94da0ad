"""Work for a client that has left ends in the database too, as the database shows."""

from __future__ import annotations

import grpc
import psycopg
import pytest

from benchmarks.postgres_server import PostgresServer
from tests.faults.serving import recovered, served
from tests.integration.client import make_call
from tests.process.processes import wait_until
from tollwire.v1 import cdr_service_pb2 as cdr_pb

# Far longer than the test: only the client's end comes soon.
WAIT_SECONDS = 100.0
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = %s"


def waiting(own: psycopg.Connection[tuple[int]], name: str) -> int:
    found = own.execute(WAITING, [name]).fetchone()
    assert found is not None
    return found[0]


@pytest.mark.parametrize("how", ["deadline", "cancel"])
def test_a_statement_ends_with_its_client(postgres: PostgresServer, name: str, how: str) -> None:
    with (
        postgres.connect(name) as own,
        postgres.connect(name) as looking,
        served(postgres.url(name), WAIT_SECONDS) as client,
    ):
        tenant = client.new_tenant()
        call = make_call(tenant.id, call_id="one")
        with own.transaction():
            own.execute("LOCK TABLE cdrs")
            asked = client.cdrs.CreateCdr.future(
                cdr_pb.CreateCdrRequest(call=call), timeout=2 if how == "deadline" else WAIT_SECONDS
            )
            wait_until(lambda: waiting(looking, name) == 1)
            if how == "cancel":
                asked.cancel()
            wait_until(lambda: waiting(looking, name) == 0)
            with pytest.raises((grpc.RpcError, grpc.FutureCancelledError)):
                asked.result()
            assert asked.code().name == {"deadline": "DEADLINE_EXCEEDED"}.get(how, "CANCELLED")
        # It was not recorded, and it can be recorded now.
        assert client.list_cdrs(tenant_id=tenant.id) == []
        assert recovered(lambda: client.create_cdr(call)).call_id == "one"
