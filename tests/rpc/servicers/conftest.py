"""All servicers over one fake subject."""

from __future__ import annotations

from typing import Any

import grpc_testing
import pytest

from tests.rpc.servicers.fakes import SERVICES, Fake
from tollwire.service.record.chunk_limiter import ChunkLimiter
from tollwire.service.rpc.access_service import AccessServicer
from tollwire.service.rpc.cdr_service import CdrServicer
from tollwire.service.rpc.rating_service import RatingServicer
from tollwire.service.rpc.tenant_service import TenantServicer


@pytest.fixture
def subject() -> Fake:
    return Fake()


@pytest.fixture
def server(subject: Fake) -> Any:
    fake: Any = subject
    return grpc_testing.server_from_dictionary(
        {
            SERVICES["RatingService"]: RatingServicer(fake, fake),
            SERVICES["CdrService"]: CdrServicer(
                fake, fake, fake, fake, fake, fake, fake, fake, ChunkLimiter(1, patience_seconds=1)
            ),
            SERVICES["TenantService"]: TenantServicer(fake),
            SERVICES["AccessService"]: AccessServicer(fake, fake),
        },
        grpc_testing.strict_real_time(),
    )
