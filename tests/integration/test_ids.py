"""Ids at the end of int64, on a server of their own: a defect here would leave no ids for other
tests."""

from __future__ import annotations

import grpc

from tests.integration.client import Client, make_call, refused
from tests.integration.conftest import NewDatabase
from tests.integration.serving import serving

MAX_ID = 2**63 - 1


def test_the_last_ids_are_a_callers_like_any_other(new_database: NewDatabase) -> None:
    with serving(new_database()) as server, Client(server.address) as client:
        first = client.new_tenant()
        last_but_one = client.new_tenant(id=MAX_ID - 1)
        assert client.create_cdr(make_call(last_but_one.id)).tenant_id == MAX_ID - 1
        extension = client.new_extension(last_but_one.id, id=MAX_ID)
        call = make_call(last_but_one.id, extension_id=MAX_ID, call_id="x")
        assert client.create_cdr(call).extension == extension
        with refused(grpc.StatusCode.ALREADY_EXISTS, "EXTENSION_EXISTS"):
            client.new_extension(last_but_one.id, id=MAX_ID)
        # They use no other ids: the server continues where it was.
        following = [client.new_tenant().id for _ in range(3)]
        assert first.id < following[0] < following[1] < following[2] < 2**62
        assert 0 < client.new_extension(first.id).id < 2**62
        # An id in the middle moves the counter past itself.
        assert client.new_tenant(id=12345).id == 12345
        assert client.new_tenant().id == 12346
        assert "Traceback" not in server.log()
