"""The client counts durations like the server, for any content of a call."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tollwire.service.cli.control_totals import TotalsCounter, duration_seconds
from tollwire.service.rpc.conversion import uploads
from tollwire.v1.cdr_service_pb2 import ControlTotals, UploadCdrsRequest
from tollwire.v1.types_pb2 import Call

FIRST, LAST = -62_135_596_800, 253_402_300_799
STAMPS = st.none() | st.builds(
    Timestamp,
    seconds=st.sampled_from([FIRST - 1, FIRST, -1, 0, 1, 2**31, 2**33, LAST, LAST + 1, 2**63 - 1])
    | st.integers(-5, 5),
    nanos=st.sampled_from([-1, 0, 1, 999_999_999, 10**9]),
)


@settings(max_examples=100, deadline=None)
@given(
    st.builds(
        Call,
        tenant_id=st.sampled_from([0, 1]),
        direction=st.sampled_from([0, 2]),
        disposition=st.just(1),
        duration_seconds=st.sampled_from([None, None, None, -1, 0, 7, 2**31 - 1, 2**31]),
        started_at=STAMPS,
        ended_at=STAMPS,
    )
)
@example(
    Call(
        started_at=Timestamp(seconds=5, nanos=2),
        ended_at=Timestamp(seconds=7, nanos=1),  # a second and nearly two
    )
)
def test_each_call_counts_as_it_does_for_the_server(call: Call) -> None:
    request = UploadCdrsRequest(calls=[call]).SerializeToString()
    assert duration_seconds(call) == uploads.chunk(request)[2].duration_seconds()


def test_a_tally_counts_the_sent_calls() -> None:
    counter = TotalsCounter()
    calls = [(line, Call(duration_seconds=line)) for line in range(1, 5)]
    taken = counter.count(calls)
    assert [next(taken), next(taken)] == calls[:2]
    assert counter.totals() == ControlTotals(calls=2, duration_seconds=3)
    assert list(taken) == calls[2:]
    assert counter.totals() == ControlTotals(calls=4, duration_seconds=10)
