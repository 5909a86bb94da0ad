"""RPCs that end later than their Batch returns."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from tests.rpc.running import DEADLINE_SECONDS, running
from tollwire.service.rpc.batches import AdmittedRpc
from tollwire.service.rpc.endpoints import in_batches, on_bytes
from tollwire.v1 import rating_service_pb2 as pb

RATING = pb.DESCRIPTOR.services_by_name["RatingService"]
RPCS = 3


class Servicer:
    """RatingService on bytes, whose RateCalls are kept until the test ends them."""

    def __init__(self) -> None:
        self.kept: list[AdmittedRpc] = []
        self.all_kept = threading.Event()

    @on_bytes
    @in_batches("keep", ends_later=True)
    def RateCall(self, request: bytes, context: Any) -> bytes:
        raise AssertionError("it runs in batches")

    def keep(self, batch: Sequence[AdmittedRpc]) -> None:
        self.kept += batch
        if len(self.kept) == RPCS:
            self.all_kept.set()

    def __getattr__(self, name: str) -> Any:
        return lambda request, context: None


def test_rpcs_that_wait_for_others_take_no_thread() -> None:
    servicer = Servicer()
    with running(RATING, servicer) as server:
        call = server.channel.unary_unary("/tollwire.v1.RatingService/RateCall")
        sent = [b"a", b"b", b"c"]
        answers = [call.future(one, timeout=DEADLINE_SECONDS) for one in sent]
        assert servicer.all_kept.wait(DEADLINE_SECONDS)
        names = [thread.name for thread in threading.enumerate()]
        assert not [name for name in names if name.startswith("rating_")]
        for one in servicer.kept:
            one.finish(b"answer to " + one.request)
        assert [answer.result() for answer in answers] == [b"answer to " + one for one in sent]
