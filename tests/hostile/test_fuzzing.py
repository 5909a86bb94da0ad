"""The short form of "make fuzz-rpc": each database once, one without and one with tokens.

Also whether it would find a defect.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.empty_pb2 import Empty
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from benchmarks.postgres_server import PostgresServer
from tests.hostile.asking import Counts, Effort, Input, ask
from tests.hostile.drawing import Drawer, Known
from tests.hostile.fuzzing import played
from tests.hostile.reflected import Method

# Servers take long to start if others are tested at the same time.
pytestmark = pytest.mark.timeout(300)

# A number and not a time: a busy machine tries the same.
EFFORT = Effort(seconds=200, inputs=250)
SEED = "1"


def test_no_request_makes_an_open_server_fail(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'tollwire.db'}"
    _holds(played(url, "sqlite", "open", EFFORT, SEED, workers=1))


@pytest.mark.skipif(
    os.environ.get("TOLLWIRE_TEST_POSTGRES", "1") == "0", reason="TOLLWIRE_TEST_POSTGRES=0"
)
def test_no_request_makes_a_server_with_tokens_fail(request: pytest.FixtureRequest) -> None:
    postgres: PostgresServer = request.getfixturevalue("postgres")
    url = postgres.url(postgres.create())
    _holds(played(url, "postgresql", "tokens", EFFORT, SEED, workers=2))


def _holds(outcome: Any) -> None:
    assert outcome.counts.findings == []
    assert outcome.problems == []
    assert outcome.counts.inputs > EFFORT.inputs * 0.9
    # Few requests are refused as malformed: requests reach the database.
    assert outcome.counts.codes["OK"] > outcome.counts.inputs / 10
    assert outcome.counts.codes["NOT_FOUND"] > 0


class _Broken(grpc.GenericRpcHandler):
    """A service that fails as Tollwire must not."""

    def service(self, details: Any) -> Any:
        if details.method == "/broken/Raise":
            return grpc.stream_stream_rpc_method_handler(_raise)
        if details.method == "/broken/Internal":
            return grpc.stream_stream_rpc_method_handler(_internal)
        return None


def _raise(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
    raise ValueError("an unexpected error")


def _internal(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
    context.abort(grpc.StatusCode.INTERNAL, "a defect")
    yield b""


@pytest.mark.parametrize(
    ("method", "code", "findings"),
    [("Raise", "UNKNOWN", 1), ("Internal", "INTERNAL", 1), ("Nothing", "UNIMPLEMENTED", 0)],
)
def test_a_forbidden_code_is_a_finding(method: str, code: str, findings: int) -> None:
    asked = Input(Method(f"/broken/{method}", Empty.DESCRIPTOR, Empty.DESCRIPTOR, True, True), ())
    counts = Counts()
    with ThreadPoolExecutor(1) as threads:
        server = grpc.server(threads)
        server.add_generic_rpc_handlers((_Broken(),))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            counts.add(asked, *ask(channel, asked))
        server.stop(None).wait()
    assert counts.codes == {code: 1}
    assert [one["method"] for one in counts.findings] == [asked.method.path] * findings


def test_a_missing_response_is_a_finding() -> None:
    counts = Counts()
    kind = Method("/x/Y", Empty.DESCRIPTOR, Empty.DESCRIPTOR, True, True)
    late = grpc.StatusCode.DEADLINE_EXCEEDED
    counts.add(Input(kind, (), deadline_seconds=0.1), late, "")
    assert counts.findings == []
    counts.add(Input(kind, ()), late, "")
    assert len(counts.findings) == 1


def test_values_of_responses_can_be_sent_again() -> None:
    """Also values below 0, and values too long to be repeated often."""
    known = Known()
    known.learn(Timestamp(seconds=-500, nanos=-500))
    drawer = Drawer(known)
    sizes = [
        len(drawer.request(kind, random.Random(seed)))
        for seed in range(300)
        for kind in (Timestamp.DESCRIPTOR, FieldMask.DESCRIPTOR)
    ]
    assert 0 < max(sizes) <= 4_000_000
