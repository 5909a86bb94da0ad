"""CdrService, usage summaries."""

from __future__ import annotations

from typing import Any

import pytest

from tests.rpc.servicers.fakes import (
    UNARY_NAMES,
    Fake,
    UnaryRow,
    check_unary,
)
from tollwire.service.domain.model import (
    UsageDimension,
    UsageQuery,
    UsageRow,
    UsageTotals,
)
from tollwire.v1 import cdr_service_pb2 as cdr_pb
from tollwire.v1 import types_pb2

UNARY: list[UnaryRow] = [
    (
        "CdrService/SummarizeUsage",
        cdr_pb.SummarizeUsageRequest(group_by=[types_pb2.USAGE_DIMENSION_DAY]),
        [UsageRow(("2026-01-01",), "USD", UsageTotals(1, 1, 63, 66, 1650, 0), UsageTotals())],
        ("summarize", UsageQuery(group_by=(UsageDimension.DAY,))),
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
