"""Every row of the error map, and the size limit of an error on the wire."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import status_pb2
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from tests.rpc.running import Running, refusal, running
from tollwire.service.domain import errors
from tollwire.service.domain.errors import FieldViolation, Reason, TollwireError
from tollwire.service.rpc import error_map
from tollwire.service.storage.engine import Database
from tollwire.v1 import rating_service_pb2 as pb
from tollwire.v1 import rating_service_pb2_grpc, types_pb2
from tollwire.v1.error_reason_pb2 import ErrorReason

SERVICE = pb.DESCRIPTOR.services_by_name["RatingService"]

ROWS: list[tuple[type[TollwireError], grpc.StatusCode, int, float | None]] = [
    (errors.InvalidInput, grpc.StatusCode.INVALID_ARGUMENT, logging.DEBUG, None),
    (errors.NotFound, grpc.StatusCode.NOT_FOUND, logging.DEBUG, None),
    (errors.AlreadyExists, grpc.StatusCode.ALREADY_EXISTS, logging.DEBUG, None),
    (errors.FailedPrecondition, grpc.StatusCode.FAILED_PRECONDITION, logging.DEBUG, None),
    (errors.Aborted, grpc.StatusCode.ABORTED, logging.DEBUG, None),
    (errors.OutOfRange, grpc.StatusCode.OUT_OF_RANGE, logging.DEBUG, None),
    (errors.Unauthenticated, grpc.StatusCode.UNAUTHENTICATED, logging.DEBUG, None),
    (errors.Forbidden, grpc.StatusCode.PERMISSION_DENIED, logging.DEBUG, None),
    (errors.Unavailable, grpc.StatusCode.UNAVAILABLE, logging.WARNING, 1.0),
    (errors.OverLimit, grpc.StatusCode.RESOURCE_EXHAUSTED, logging.WARNING, None),
    (errors.Exhausted, grpc.StatusCode.RESOURCE_EXHAUSTED, logging.WARNING, 1.0),
    (errors.TooLate, grpc.StatusCode.DEADLINE_EXCEEDED, logging.DEBUG, None),
    (errors.Unwanted, grpc.StatusCode.CANCELLED, logging.DEBUG, None),
]


class Raising:
    """Every method raises ``error``; the stream after one response."""

    error: Exception

    def __getattr__(self, name: str) -> Any:
        return self._stream if name in ("ExportRates", "StreamRateCalls") else self._raise

    def _raise(self, request: Any, context: Any) -> Any:
        raise self.error

    def _stream(self, request: Any, context: Any) -> Iterator[Any]:
        yield pb.ExportRatesResponse(rates=[types_pb2.Rate(id=1)])
        raise self.error


@pytest.fixture(scope="module")
def server(transport: str) -> Iterator[Running]:
    with running(SERVICE, Raising(), transport=transport) as server:
        yield server


def raise_there(server: Running, error: Exception) -> None:
    Raising.error = error


def test_the_table_is_complete() -> None:
    kinds = {
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, TollwireError) and kind is not TollwireError
    }
    assert set(error_map.ERROR_TABLE) == kinds == {row[0] for row in ROWS}


def test_reasons_are_those_of_the_wire() -> None:
    names = {name.removeprefix("ERROR_REASON_") for name in ErrorReason.DESCRIPTOR.values_by_name}
    assert {reason.value for reason in Reason} == names - {"UNSPECIFIED"}
    assert all(reason.name == reason.value for reason in Reason)


@pytest.mark.parametrize(("kind", "code", "level", "retry_seconds"), ROWS)
def test_each_kind_of_failure(
    server: Running,
    caplog: pytest.LogCaptureFixture,
    kind: type[TollwireError],
    code: grpc.StatusCode,
    level: int,
    retry_seconds: float | None,
) -> None:
    caplog.set_level(logging.DEBUG, "tollwire.rpc")
    raise_there(
        server,
        kind(
            Reason.CDR_CONFLICT,
            "call.call_id: 'Größe 100%' is taken",
            metadata={"cdr_id": "7"},
            violations=[FieldViolation("call.call_id", "is taken")],
        ),
    )
    stub = rating_service_pb2_grpc.RatingServiceStub(server.channel)
    found = refusal(lambda: stub.GetRate(pb.GetRateRequest(id=1)))
    assert found.code == code
    assert found.message == "call.call_id: 'Größe 100%' is taken"
    assert (found.reason, found.domain) == ("CDR_CONFLICT", "tollwire")
    assert found.metadata == {"cdr_id": "7"}
    assert found.violations == [("call.call_id", "is taken")]
    assert found.retry_seconds == retry_seconds
    # The RPC and the failure, without the message, which may contain a number.
    lines = [record for record in caplog.records if record.name == "tollwire.rpc"]
    assert [(record.levelno, record.getMessage()) for record in lines] == [
        (level, f"RatingService/GetRate: {code.name} CDR_CONFLICT")
    ]


class SubjectsOwn(errors.NotFound):
    pass


def test_a_subclass_has_the_row_of_its_base(server: Running) -> None:
    raise_there(server, SubjectsOwn(Reason.RATE_NOT_FOUND, "there is no rate 1"))
    stub = rating_service_pb2_grpc.RatingServiceStub(server.channel)
    found = refusal(lambda: stub.GetRate(pb.GetRateRequest(id=1)))
    assert (found.code, found.reason) == (grpc.StatusCode.NOT_FOUND, "RATE_NOT_FOUND")


@pytest.mark.parametrize(
    "error",
    [
        ValueError("secret: 447911123456"),
        KeyError("x"),
        RecursionError(),
        NotImplementedError(),
        StopIteration(),
        TollwireError(Reason.NO_RATE, "of no kind"),
    ],
    ids=repr,
)
def test_anything_else_is_a_defect(
    server: Running, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    raise_there(server, error)
    stub = rating_service_pb2_grpc.RatingServiceStub(server.channel)
    found = refusal(lambda: stub.GetRate(pb.GetRateRequest(id=1)))
    assert (found.code, found.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    assert found.message == error_map.DEFECT_MESSAGE
    assert found.violations == []
    assert len(caplog.records) == 1
    record = caplog.records[0]
    assert (record.levelno, record.getMessage()) == (logging.ERROR, "RatingService/GetRate: defect")
    assert record.exc_info is not None and record.exc_info[1] is error


@pytest.mark.parametrize(
    "error",
    [errors.OutOfRange(Reason.UPLOAD_GAP, "a gap"), ZeroDivisionError()],
    ids=["named", "defect"],
)
def test_an_error_after_responses_of_a_stream(
    server: Running, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    raise_there(server, error)
    stub = rating_service_pb2_grpc.RatingServiceStub(server.channel)
    responses = stub.ExportRates(pb.ExportRatesRequest(tenant_id=1))
    assert next(responses).rates[0].id == 1
    found = refusal(lambda: next(responses))
    expected = ("OUT_OF_RANGE", "UPLOAD_GAP")
    if isinstance(error, ZeroDivisionError):
        expected = ("INTERNAL", "INTERNAL")
    assert (found.code.name, found.reason) == expected
    assert len(caplog.records) == (expected[0] == "INTERNAL")


def test_the_log_says_why_the_database_is_unavailable(
    server: Running, caplog: pytest.LogCaptureFixture
) -> None:
    failure = errors.Unavailable(Reason.DATABASE_UNAVAILABLE, "the database does not answer")
    failure.__cause__ = OSError("connection refused\n[SQL: SELECT 447911123456]")
    raise_there(server, failure)
    stub = rating_service_pb2_grpc.RatingServiceStub(server.channel)
    assert refusal(lambda: stub.GetRate(pb.GetRateRequest(id=1))).reason == "DATABASE_UNAVAILABLE"
    assert [record.getMessage() for record in caplog.records] == [
        "RatingService/GetRate: UNAVAILABLE DATABASE_UNAVAILABLE (connection refused)"
    ]


def test_a_failed_statement_does_not_show_its_values(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/tollwire.db")
    insert = text("INSERT INTO nowhere VALUES (:number)")
    try:
        with pytest.raises(DBAPIError) as failed, database.write() as connection:
            connection.execute(insert, {"number": "447911123456"})
    finally:
        database.close()
    assert "no such table: nowhere" in str(failed.value)
    assert "4479" not in str(failed.value)


def test_a_long_list_of_violations_is_cut_and_counted(server: Running) -> None:
    violations = [
        FieldViolation(f"rate.intervals[{index}].cost_per_minute", "must be a number; " + "é" * 90)
        for index in range(192)
    ]
    raise_there(server, errors.invalid_fields(violations))
    stub = rating_service_pb2_grpc.RatingServiceStub(server.channel)
    found = refusal(lambda: stub.GetRate(pb.GetRateRequest(id=1)))
    assert found.code == grpc.StatusCode.INVALID_ARGUMENT
    shown = found.violations[:-1]
    assert 5 < len(shown) < 30
    assert shown == [(wrong.field, wrong.description) for wrong in violations[: len(shown)]]
    assert found.violations[-1] == ("", f"and {192 - len(shown)} more")
    assert found.message.startswith("rate.intervals[0].cost_per_minute: must be")
    assert found.message.endswith("…")


def test_a_list_that_just_fits_is_not_cut() -> None:
    violations = [FieldViolation("a", "b")] * 50
    answer = status_pb2.Status.FromString(_details(errors.invalid_fields(violations)))
    assert len(answer.details) == 2
    assert b"more" not in answer.SerializeToString()


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=2000)


@settings(max_examples=100, deadline=None)
@example("😀" * 2000, [FieldViolation("😀" * 2000, "😀" * 2000)] * 50, {"cdr_id": "😀" * 2000})
@example("%" * 2000, [FieldViolation("", "x" * 300)] * 50, {})
@given(
    message=TEXT,
    violations=st.lists(st.builds(FieldViolation, TEXT, TEXT), max_size=50),
    metadata=st.dictionaries(st.just("cdr_id"), TEXT),
)
def test_trailers_stay_small(
    message: str, violations: list[FieldViolation], metadata: dict[str, str]
) -> None:
    error = errors.Unavailable(
        Reason.INVALID_FIELD, message, violations=violations, metadata=metadata
    )
    details = _details(error)
    answer = status_pb2.Status.FromString(details)
    encoded = sum(1 if 32 <= byte <= 126 and byte != 37 else 3 for byte in answer.message.encode())
    assert encoded + (len(details) + 2) // 3 * 4 <= error_map.MAX_TRAILERS_BYTES
    assert answer.message == message or answer.message.endswith("…")


def _details(error: TollwireError) -> bytes:
    status = error_map.status(error_map.ERROR_TABLE[type(error)], error)
    assert isinstance(status.details, bytes)
    return status.details
