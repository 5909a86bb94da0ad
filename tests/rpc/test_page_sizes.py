"""Pages of the lists whose items are short: no page has more than clients accept.

The other lists end a page early (service/domain/paging.py), and their own tests check that.
"""

from __future__ import annotations

import pytest
from google.protobuf.message import Message

from tollwire.service.domain.model import (
    MAX_EXTENSION_NUMBER_CHARS,
    MAX_ID,
    MAX_NAME_CHARS,
    MAX_STARTED_AT_NS,
    Extension,
    Rounding,
    Tenant,
)
from tollwire.service.domain.paging import MAX_PAGE_BYTES, MAX_PAGE_SIZE
from tollwire.service.domain.record_model import Upload
from tollwire.service.rpc.conversion import tenants, uploads
from tollwire.v1 import cdr_service_pb2 as cdr_pb
from tollwire.v1 import tenant_service_pb2 as tenant_pb

# Four bytes in UTF-8.
LONGEST = "\U0001f4de"
TOKEN = "x" * 1000
TENANT = Tenant(
    MAX_ID,
    LONGEST * MAX_NAME_CHARS,
    rounding=Rounding.DOWN,
    country_code="9" * 8,
    national_prefix="9" * 8,
    international_prefix="9" * 8,
    created_at_ns=MAX_STARTED_AT_NS,
    cost_decimals=8,
)
EXTENSION = Extension(
    MAX_ID, MAX_ID, LONGEST * MAX_EXTENSION_NUMBER_CHARS, LONGEST * MAX_NAME_CHARS
)
UPLOAD = Upload(
    *(MAX_ID,) * 10,
    created_at_ns=MAX_STARTED_AT_NS,
    updated_at_ns=MAX_STARTED_AT_NS,
    reversed_at_ns=MAX_STARTED_AT_NS,
    recorded_again=MAX_ID,
)


@pytest.mark.parametrize(
    "page",
    [
        tenant_pb.ListTenantsResponse(
            tenants=[tenants.tenant(TENANT)] * MAX_PAGE_SIZE, next_page_token=TOKEN
        ),
        tenant_pb.ListExtensionsResponse(
            extensions=[tenants.extension(EXTENSION)] * MAX_PAGE_SIZE, next_page_token=TOKEN
        ),
        cdr_pb.ListUploadsResponse(
            uploads=[uploads.upload(UPLOAD)] * MAX_PAGE_SIZE, next_page_token=TOKEN
        ),
    ],
    ids=lambda page: type(page).__name__,
)
def test_the_largest_page_is_below_the_limit_of_clients(page: Message) -> None:
    assert page.ByteSize() <= MAX_PAGE_BYTES
