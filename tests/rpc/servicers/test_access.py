"""AccessService: each method parses, calls the subject once, and answers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from tests.rpc.servicers.examples import (
    TOKEN,
    TOKEN_MESSAGE,
)
from tests.rpc.servicers.fakes import (
    UNARY_NAMES,
    Fake,
    UnaryRow,
    check_unary,
)
from tollwire.service.domain.model import (
    Page,
    Token,
)
from tollwire.service.domain.record_model import (
    AuditEntry,
    AuditFilter,
)
from tollwire.service.domain.request import Role, Scope
from tollwire.v1 import access_service_pb2 as access_pb

UNARY: list[UnaryRow] = [
    (
        "AccessService/CreateToken",
        access_pb.CreateTokenRequest(
            token=access_pb.Token(name="A", role=access_pb.ROLE_INGEST, tenant_ids=[8, 7, 8])
        ),
        (TOKEN, "tw_5_secret"),
        ("create", Token("A", Role.INGEST, Scope(frozenset({7, 8})))),
        access_pb.CreateTokenResponse(token=TOKEN_MESSAGE, secret="tw_5_secret"),
    ),
    (
        "AccessService/GetToken",
        access_pb.GetTokenRequest(id=5),
        TOKEN,
        ("get", 5),
        TOKEN_MESSAGE,
    ),
    (
        "AccessService/ListTokens",
        access_pb.ListTokensRequest(page_size=-5, page_token="t", include_revoked=True),
        Page([TOKEN], "next"),
        ("list", -5, "t", True),
        access_pb.ListTokensResponse(tokens=[TOKEN_MESSAGE], next_page_token="next"),
    ),
    (
        "AccessService/ListAuditEntries",
        access_pb.ListAuditEntriesRequest(
            tenant_id=7,
            action="UpdateRate",
            created_after=Timestamp(nanos=1),
            created_before=Timestamp(nanos=2),
            page_size=-5,
            page_token="t",
        ),
        Page([AuditEntry(5, 6, "Ada", 2, "r-1", "UpdateRate", 7, "rate/9", "{}", "[]")], "next"),
        ("list", AuditFilter(7, "UpdateRate", 1, 2), -5, "t"),
        access_pb.ListAuditEntriesResponse(
            entries=[
                access_pb.AuditEntry(
                    id=5,
                    created_at=Timestamp(nanos=6),
                    caller="Ada",
                    token_id=2,
                    request_id="r-1",
                    action="UpdateRate",
                    tenant_id=7,
                    resource="rate/9",
                    before="{}",
                    after="[]",
                )
            ],
            next_page_token="next",
        ),
    ),
    (
        "AccessService/RevokeToken",
        access_pb.RevokeTokenRequest(id=5),
        replace(TOKEN, revoked_at_ns=6),
        ("revoke", 5),
        None,
    ),
]


@pytest.mark.parametrize(UNARY_NAMES, UNARY, ids=[row[0] for row in UNARY])
def test_unary_methods(
    server: Any,
    subject: Fake,
    path: str,
    request_message: Any,
    answer: Any,
    call: tuple[Any, ...],
    response: Any,
) -> None:
    check_unary(server, subject, path, request_message, answer, call, response)
