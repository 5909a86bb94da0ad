"""The pipeline of an RPC: its checks, their order, and the resources that it releases."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tollwire.service.domain.errors import Exhausted, NotFound, Reason
from tollwire.service.domain.request import EVERY_TENANT, LOCAL, Caller, Request, Role, Scope
from tollwire.service.domain.thread_context import current_request, handling
from tollwire.service.rpc.pipeline import RpcContext, RpcPipeline
from tollwire.service.rpc.status import StatusCode
from tollwire.service.rpc.transports.grpcio import GrpcioCall


class FakeCall:
    metadata = ()

    def remaining_seconds(self) -> float:
        return 5.0

    def is_wanted(self) -> bool:
        return True


class RecordedLimit:
    """A limit that records the callers that acquire and release it."""

    def __init__(self, full: bool = False) -> None:
        self.full = full
        self.inside = 0
        self.seen: list[str] = []

    def acquire(self, rpc: RpcContext) -> None:
        if self.full:
            raise Exhausted(Reason.TOO_MANY_STREAMS, "full")
        self.inside += 1
        self.seen.append(rpc.request.caller.name)

    def release(self, rpc: RpcContext) -> None:
        self.inside -= 1


@pytest.fixture
def rpc() -> Iterator[RpcContext]:
    call: Any = FakeCall()
    yield RpcContext("CdrService/GetCdr", call)


def test_the_block_has_the_request_of_the_rpc(rpc: RpcContext) -> None:
    caller = Caller("switch", Role.INGEST, Scope(frozenset({7})), token_id=3)
    with RpcPipeline(identify=lambda _: caller).admit(rpc):
        assert current_request() is rpc.request
        assert current_request().caller is caller
        assert 4.0 < (current_request().remaining_seconds() or 0) <= 5.0
    assert current_request().caller is LOCAL


def test_a_clock_change_does_not_shorten_deadlines(monkeypatch: pytest.MonkeyPatch) -> None:
    class Context:
        def time_remaining(self) -> float:
            return deadline - time.time()  # as grpc's

        def invocation_metadata(self) -> tuple[()]:
            return ()

        def is_active(self) -> bool:
            return True

    deadline = time.time() + 5
    context: Any = Context()
    request = RpcContext("CdrService/GetCdr", GrpcioCall(context, iter([]), print)).request
    for set_to in (deadline + 10**9, 0.0):
        monkeypatch.setattr(time, "time", lambda now=set_to: now)
        assert 4.0 < (request.remaining_seconds() or 0) <= 5.0


def test_slots_are_released_however_the_rpc_ends(rpc: RpcContext) -> None:
    limit = RecordedLimit()
    pipeline = RpcPipeline(limits=[limit])
    with pipeline.admit(rpc):
        assert limit.inside == 1
    with pytest.raises(NotFound), pipeline.admit(rpc):
        raise NotFound(Reason.CDR_NOT_FOUND, "there is none")
    assert (limit.inside, limit.seen) == (0, ["local", "local"])


def test_a_refused_slot_releases_those_acquired_before(rpc: RpcContext) -> None:
    first, full = RecordedLimit(), RecordedLimit(full=True)
    with pytest.raises(Exhausted), RpcPipeline(limits=[first, full]).admit(rpc):
        pytest.fail("the RPC was admitted")
    assert first.inside == 0 and full.inside == 0
    assert current_request().caller is LOCAL


def test_an_unknown_caller_takes_no_slot(rpc: RpcContext) -> None:
    def nobody(rpc: RpcContext) -> Caller:
        raise NotFound(Reason.CDR_NOT_FOUND, "unknown")

    limit = RecordedLimit()
    with pytest.raises(NotFound), RpcPipeline(identify=nobody, limits=[limit]).admit(rpc):
        pytest.fail("the RPC was admitted")
    assert limit.seen == []


def test_observers_get_each_end_with_its_code(rpc: RpcContext) -> None:
    heard: list[tuple[str, StatusCode]] = []
    pipeline = RpcPipeline(observers=[lambda seen: heard.append((seen.method, seen.code))])
    rpc.code = StatusCode.NOT_FOUND
    pipeline.ended(rpc)
    assert heard == [("CdrService/GetCdr", StatusCode.NOT_FOUND)]


def test_a_request_belongs_to_its_thread() -> None:
    other: list[Caller] = []
    with handling(Request(caller=Caller("switch", Role.INGEST, EVERY_TENANT))):
        thread = threading.Thread(target=lambda: other.append(current_request().caller))
        thread.start()
        thread.join()
    assert other == [LOCAL]


@pytest.mark.parametrize(
    ("scope", "other", "covered"),
    [
        (EVERY_TENANT, EVERY_TENANT, True),
        (EVERY_TENANT, Scope(frozenset({1})), True),
        (Scope(frozenset({1, 2})), Scope(frozenset({2})), True),
        (Scope(frozenset({1})), Scope(frozenset({1, 2})), False),
        (Scope(frozenset({1, 2})), EVERY_TENANT, False),
        (Scope(frozenset()), Scope(frozenset()), True),
    ],
)
def test_scopes(scope: Scope, other: Scope, covered: bool) -> None:
    assert scope.covers_all_of(other) is covered
    assert EVERY_TENANT.covers(5) and Scope(frozenset({5})).covers(5)
    assert not Scope(frozenset({5})).covers(6)
