"""Each field of each request, wrong in each way, generated from the descriptors.

A wrong value is refused as INVALID_ARGUMENT, with the name of the field; an odd value may be
accepted; no value results in INTERNAL or UNKNOWN.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.hostile.drawing import message_of
from tests.integration.client import Client, Refusal, make_call, refusal_of
from tests.integration.methods import METHODS, RIGHT, Scene, send, set_scene
from tests.integration.serving import ServerProcess

INT32 = [-(2**31), 2**31 - 1]
INT64 = [-(2**63), 2**63 - 1]
BAD_IDS: list[Any] = [-1, -(2**63)]
NUL: list[Any] = ["\x00", "a\x00b"]
BAD_MONEY: list[Any] = [
    *["1e3", "1,000.00", "0.123456789", " 1", "1 ", "-1", "+1", "NaN", "Infinity", "x", "1_000"],
    *["0x1", "1.", ".1", ".", "1..2", "1.2.3", "١", "１", "100000000", "99999999.999999991"],
    *["9" * 400, "\x00", "1\n", "-0", "1\u00a0", "$1", "1'000", "0.000000001"],
]
BAD_TIMES: list[Any] = [
    Timestamp(seconds=0, nanos=10**9),
    Timestamp(seconds=0, nanos=-1),
    Timestamp(seconds=0, nanos=2**31 - 1),
    Timestamp(seconds=0, nanos=-(2**31)),
    Timestamp(seconds=253_402_300_800),
    Timestamp(seconds=-62_135_596_801),
    Timestamp(seconds=2**63 - 1, nanos=999_999_999),
    Timestamp(seconds=-(2**63)),
]
BAD_TOKENS: list[Any] = ["x", "\x00", "é", "=", "W10=", "bnVsbA==", "A" * 100_000, " ", "-"]

# The wrong values of a field besides those of its type; from the comments in the protos.
WRONG: dict[str, list[Any]] = {
    "Call.tenant_id": [0, *BAD_IDS],
    "Call.extension_id": BAD_IDS,
    "Call.caller_number": ["1" * 257],
    "Call.destination_number": ["1" * 257],
    "Call.direction": [0],
    "Call.disposition": [0],
    "Call.duration_seconds": [-1, 2**31, *INT64],
    "Call.started_at": [Timestamp(seconds=-1), Timestamp(seconds=9_223_372_036)],
    "Call.ended_at": [Timestamp(seconds=1_000)],
    "Call.call_id": ["c" * 256],
    "Call.occurrence": [-1, 2, *INT32],  # the correct call has a call_id
    # A call of UploadCdrs that has one is a failure; every other method refuses it.
    "UnreadableRecord.line": [1, -1, *INT64],
    "UnreadableRecord.text": [b"x", b"\x00"],
    "UnreadableRecord.header": [b"x", b"\xff"],
    "UnreadableRecord.message": ["x"],
    "Rate.tenant_id": BAD_IDS,
    "VerifyLedgerRequest.root": ["x", "1:", "1:" + "0" * 63, "-1:" + "0" * 64, "1-" * 1_000],
    "Rate.prefix": ["+", " ", "x", "4x", "4" * 33, "٤", "tel:", "4" * 100_000],
    "Rate.destination": ["d" * 201],
    "Rate.cost_per_minute": ["", *BAD_MONEY],
    "Rate.connect_fee": BAD_MONEY,
    "Rate.billing_increment": [0, -1, 86_401, *INT32],
    "Rate.minimum_seconds": [-1, -(2**31)],
    "Rate.effective_to": [Timestamp(seconds=1_000)],
    "Interval.start_seconds": [0, -1, -(2**31)],
    "Interval.cost_per_minute": ["", *BAD_MONEY],
    "Interval.billing_increment": [0, -1, 86_401, *INT32],
    "Tenant.id": BAD_IDS,
    "Tenant.name": ["n" * 201],
    "Tenant.currency": ["usd", "US", "USDD", "U D", "ÄÖÜ", "１２３", "123"],
    "Tenant.cost_decimals": [-1, 1, 3, 9, *INT32],
    "Tenant.country_code": ["12345", "+1", "x", "٤"],
    "Tenant.national_prefix": ["123456789", "x", "+", "٤"],
    "Tenant.international_prefix": ["123456789", "x", "+", "٤"],
    "Extension.id": BAD_IDS,
    "Extension.tenant_id": BAD_IDS,
    "Extension.number": ["", "1" * 65],
    "Extension.name": ["n" * 201],
    "Token.name": ["", "n" * 201],
    "Token.role": [0],
    "Token.tenant_ids": [0, *BAD_IDS],
    "Token.certificate_identity": ["c" * 256],
    "Token.expires_at": [Timestamp(seconds=1_000), Timestamp(seconds=9_223_372_036)],
    "ListAuditEntriesRequest.action": ["a" * 101],
    "ImportRatesRequest.tenant_id": [0, *BAD_IDS],
    "ImportRatesRequest.mode": [0],
    "ExportRatesRequest.tenant_id": [0, *BAD_IDS],
    "UploadCdrsRequest.offset": [-1, -(2**63)],
    "UploadCdrsRequest.upload_id": BAD_IDS,
    "GetUploadRequest.upload_id": [0, *BAD_IDS],
    **{
        f"{request}.{field}": values
        for request in ("ListCdrsRequest", "ExportCdrsRequest")
        for field, values in {
            "call_id": ["c" * 256],
            "extension_number": ["1" * 65],
            "rate_id": BAD_IDS,
            "upload_id": BAD_IDS,
            "matched_prefix": ["x", "+44", "4" * 33, "٤", " "],
        }.items()
    },
    "ControlTotals.calls": [-1, -(2**63)],
    "ControlTotals.duration_seconds": [-1, -(2**63)],
    "ListUploadFailuresRequest.upload_id": [0, *BAD_IDS],
    "ListUploadFailuresRequest.reason": ["NO_RATE", "invalid_field", " ", "é", "e" * 100_000],
    "ReverseCdrRequest.reason": ["", "r" * 1001],
    "ReverseCdrRequest.requested_by": ["", "r" * 201],
    "ReverseUploadRequest.upload_id": [0, *BAD_IDS],
    "ReverseUploadRequest.reason": ["", "r" * 1001],
    "ReverseUploadRequest.requested_by": ["", "r" * 201],
    "ExplainCdrRequest.tenant_id": [0, *BAD_IDS],
    "ExplainCdrRequest.call_id": ["c" * 256],
    "ReverseCdrsRequest.ids": [0, *BAD_IDS],
    "ReverseCdrsRequest.call_ids": ["", "c" * 256],
    "ReverseCdrsRequest.upload_id": BAD_IDS,
    "ReverseCdrsRequest.rate_id": BAD_IDS,
    "ReverseCdrsRequest.matched_prefix": ["x", "+44", "4" * 33, "٤", " "],
    "ReverseCdrsRequest.extension_number": ["1" * 65],
    "ReverseCdrsRequest.reason": ["", "r" * 1001],
    "ReverseCdrsRequest.requested_by": ["", "r" * 201],
    "ListReversalsRequest.upload_id": BAD_IDS,
    "SummarizeUsageRequest.group_by": [0],
    "SummarizeUsageRequest.time_zone": ["x", " ", ".", "/", "../UTC", "UTC/", "e" * 100_000, "é"],
}
# Set by the server and ignored in requests, by method if that differs.
IGNORED = {
    *("Tenant.created_at", "Rate.created_at", "Rate.updated_at"),
    *("Token.created_at", "Token.created_by", "Token.revoked_at"),
}
IGNORED_IN = {
    ("CreateRate", "Rate.id"),
    ("CreateRate", "Rate.etag"),
    ("CreateToken", "Token.id"),
    ("ImportRates", "Rate.id"),
    ("ImportRates", "Rate.etag"),
}
# In these, one bad record is reported in the response and does not fail the RPC.
IN_ANSWER = {"BatchRateCalls", "StreamRateCalls", "UploadCdrs", "ImportRates"}


def leaves(descriptor: Descriptor, path: str = "") -> Iterator[tuple[str, FieldDescriptor]]:
    """Every field that holds a value, with its path as in errors: "rate.intervals[0].…"."""
    for field in descriptor.fields:
        name = f"{path}{field.name}{'[0]' if field.is_repeated else ''}"
        kind = field.message_type
        if kind is None or kind.full_name.startswith("google.protobuf."):
            yield (name if kind is not None else f"{path}{field.name}", field)
        else:
            yield from leaves(kind, f"{name}.")


def wrong_values(method: str, field: FieldDescriptor) -> list[Any]:
    """The values that must be refused for this field."""
    key = f"{message_of(field).name}.{field.name}"
    if key in IGNORED or (method, key) in IGNORED_IN:
        return []
    values = list(WRONG.get(key, []))
    if field.message_type is not None and field.message_type.name == "Timestamp":
        values += BAD_TIMES
    elif field.message_type is not None:  # a field mask
        values += [["nonsense"], [""], ["id"], ["\x00"], ["*.x"], ["a" * 100_000], ["name.first"]]
    elif field.enum_type is not None:
        values += [99, -1, *INT32]
    elif field.name == "page_size":
        values += [-1, -(2**31)]
    elif field.name == "page_token":
        values += BAD_TOKENS
    elif field.type == FieldDescriptor.TYPE_STRING:
        values += NUL
    elif field.name == "id":
        required = not method.startswith(("Create", "Explain"))
        values += [0, *BAD_IDS] if required else BAD_IDS
    elif field.name in ("tenant_id", "extension_id"):
        values += BAD_IDS
    return values


def strange_values(field: FieldDescriptor) -> list[Any]:
    """The values that may be accepted, but must not break anything."""
    if field.type == FieldDescriptor.TYPE_STRING:
        return [
            "",
            "x" * 200_000,
            "\u202e\ufeff\U0010ffff",
            "%_\\'\";--",
            "\n\r\t",
            "{}",
            "\x7f\x01",
        ]
    if field.type == FieldDescriptor.TYPE_BYTES:
        return [b"", b"\x00\xff\n", b"x" * 200_000]
    if field.type == FieldDescriptor.TYPE_INT64 and field.name != "id":
        return [0, 1, 2**31, 2**53 + 1, 2**63 - 1]
    if field.type == FieldDescriptor.TYPE_INT32:
        return [0, 1, 2**31 - 1]
    if field.message_type is not None and field.message_type.name == "Timestamp":
        return [
            Timestamp(),
            Timestamp(seconds=-62_135_596_800),
            Timestamp(seconds=253_402_300_799, nanos=999_999_999),
        ]
    if field.message_type is not None:
        return [["*"], ["*", "*"], []]
    return []


def put(request: Message, path: str, field: FieldDescriptor, value: Any) -> None:
    """Set the field at ``path`` of a correct request to ``value``."""
    holder: Any = request
    *parents, _ = path.split(".")
    for parent in parents:
        holder = getattr(holder, parent.removesuffix("[0]"))
        if parent.endswith("[0]"):
            holder = holder[0]
    if field.is_repeated:
        del getattr(holder, field.name)[:]
        getattr(holder, field.name).append(value)
    elif field.message_type is not None and field.message_type.name == "FieldMask":
        getattr(holder, field.name).paths[:] = value
    elif field.message_type is not None:
        getattr(holder, field.name).CopyFrom(value)
    else:
        setattr(holder, field.name, value)


def complaints(client: Client, method: str, request: Message) -> tuple[Refusal, set[str]]:
    """The refusal of the service, and the fields that it names, in an error or in a response."""
    try:
        answers = send(client, method, request)
    except grpc.RpcError as error:
        refusal = refusal_of(error)
        assert refusal.code not in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN), refusal
        return refusal, set(refusal.violations)
    fields: set[str] = set()
    if method in IN_ANSWER:
        for answer in answers:
            for rated in getattr(answer, "rated", []):
                fields |= {f"calls[0].{rated.error.field}"} if rated.HasField("error") else set()
            for error in getattr(answer, "errors", []):
                fields.add(f"rates[{error.index}].{error.field}")
            for failure in getattr(answer, "failures", []):
                assert failure.message, failure
                if failure.reason == "UNREADABLE_RECORD":
                    fields.add("calls[0].unreadable")
                    continue
                assert failure.reason in ("INVALID_FIELD", "CDR_CONFLICT", "COST_OVERFLOW") or (
                    failure.reason.endswith("_NOT_FOUND")
                ), failure
                fields |= {f"calls[0].{word.strip(':;,')}" for word in failure.message.split()}
    return Refusal(), fields


CASES = [
    pytest.param(method, path, field, id=f"{method}-{path}")
    for method, descriptor in METHODS.items()
    for path, field in leaves(descriptor.input_type)
]


@pytest.fixture(scope="module")
def scene(client: Client) -> Scene:
    return set_scene(client)


@pytest.fixture(scope="module", autouse=True)
def unharmed(server: ServerProcess, client: Client, scene: Scene) -> Iterator[None]:
    """Afterwards the server serves as before, and its log has no traceback."""
    yield
    stub = health_pb2_grpc.HealthStub(client.channel)
    status = stub.Check(health_pb2.HealthCheckRequest()).status
    assert status == health_pb2.HealthCheckResponse.SERVING
    fresh = client.new_tenant()
    client.new_rate(fresh.id, "44", "0.0200", 6)
    assert client.rate(make_call(fresh.id, "4420", 7)).cost == "0.0040"
    assert "Traceback" not in server.log()


def test_every_method_has_a_right_request(client: Client, scene: Scene) -> None:
    assert set(RIGHT) == set(METHODS)
    own = set_scene(client)
    state_refuses = {
        "DeleteRate": "ETAG_MISMATCH",
        "DeleteTenant": "TENANT_IN_USE",
        "DeleteExtension": "EXTENSION_IN_USE",
    }
    for method, right in RIGHT.items():
        try:
            answers = send(client, method, right(own))
        except grpc.RpcError as error:
            assert refusal_of(error).reason == state_refuses.get(method), method
        else:
            assert answers or method in ("ExportCdrs",), method
    # A table of wrong values that names no field is an error.
    keys = {f"{message_of(field).name}.{field.name}" for _, _, field in map(_values, CASES)}
    assert set(WRONG) <= keys
    assert keys >= IGNORED


def _values(case: Any) -> tuple[str, str, FieldDescriptor]:
    return case.values


@pytest.mark.parametrize(("method", "path", "field"), CASES)
def test_a_wrong_value_is_refused_and_named(
    client: Client, scene: Scene, method: str, path: str, field: FieldDescriptor
) -> None:
    values = wrong_values(method, field)
    if path.startswith("rates[0]"):
        assert_each_rate_is_rejected(client, scene, path, field, values)
        return
    unnamed = []
    # An unreadable record is refused for its presence.
    call, is_unreadable, _ = path.partition(".unreadable.")
    named = {f"{call}.unreadable" if is_unreadable else path}
    if field.is_repeated:
        named.add(f"{path}[0]")
    for value in values:
        request: Any = RIGHT[method](scene)
        put(request, path, field, value)
        if method == "UpdateExtension" and value == "":
            # Without a mask the field is unset, and the extension keeps its value.
            request.update_mask.paths.append(field.name)
        refusal, fields = complaints(client, method, request)
        as_error = refusal.code == grpc.StatusCode.INVALID_ARGUMENT
        as_answer = method in IN_ANSWER and refusal.code == grpc.StatusCode.OK
        if named.isdisjoint(fields) or not (as_error or as_answer):
            unnamed.append((str(value)[:60], refusal.code.name, refusal.message[:200], fields))
    assert unnamed == []


def assert_each_rate_is_rejected(
    client: Client, scene: Scene, path: str, field: FieldDescriptor, values: list[Any]
) -> None:
    """All wrong values in one deck, a rate for each: an import has a result for every rate."""
    deck: Any = RIGHT["ImportRates"](scene)
    del deck.rates[:]
    for value in values:
        request: Any = RIGHT["ImportRates"](scene)
        put(request, path, field, value)
        deck.rates.append(request.rates[0])
    [answer] = send(client, "ImportRates", deck)
    assert answer.rejected == len(values)
    named = [(error.index, f"rates[0].{error.field}") for error in answer.errors]
    assert named == [(index, path) for index in range(len(values))]


@pytest.mark.parametrize(("method", "path", "field"), CASES)
def test_an_odd_value_breaks_nothing(
    client: Client, scene: Scene, method: str, path: str, field: FieldDescriptor
) -> None:
    # A deletion that is accepted needs a scene of its own.
    own = set_scene(client) if method.startswith("Delete") else scene
    requests = [RIGHT[method](own) for _ in strange_values(field)]
    for request, value in zip(requests, strange_values(field), strict=True):
        put(request, path, field, value)
    with ThreadPoolExecutor(4) as pool:
        for _ in pool.map(partial(complaints, client, method), requests):
            pass


MESSAGE_FIELDS = [
    pytest.param(method, field.name, id=f"{method}-{field.name}")
    for method, descriptor in METHODS.items()
    for field in descriptor.input_type.fields
    if field.message_type is not None
    and not field.is_repeated
    and not field.message_type.full_name.startswith("google.protobuf.")
    and field.name != "control_totals"  # optional, and valid if empty
]


@pytest.mark.parametrize(("method", "name"), MESSAGE_FIELDS)
def test_a_missing_message_is_named(client: Client, scene: Scene, method: str, name: str) -> None:
    request: Any = RIGHT[method](scene)
    request.ClearField(name)
    refusal, fields = complaints(client, method, request)
    assert (refusal.code, fields) == (grpc.StatusCode.INVALID_ARGUMENT, {name})
    # An empty message is present, and its own fields are wrong.
    request = RIGHT[method](scene)
    getattr(request, name).Clear()
    getattr(request, name).SetInParent()
    refusal, fields = complaints(client, method, request)
    if method != "CreateTenant":
        assert refusal.code == grpc.StatusCode.INVALID_ARGUMENT
        assert fields
        assert all(field.startswith(f"{name}.") for field in fields)


@pytest.mark.parametrize("method", ["BatchRateCalls", "StreamRateCalls", "UploadCdrs"])
def test_more_than_ten_thousand_calls_are_refused(
    client: Client, scene: Scene, method: str
) -> None:
    request: Any = RIGHT[method](scene)
    call = request.calls[0]
    request.calls.extend([call] * 10_000)
    refusal, fields = complaints(client, method, request)
    assert (refusal.code, fields) == (grpc.StatusCode.INVALID_ARGUMENT, {"calls"})
    assert "10,000" in refusal.message or "10000" in refusal.message


def test_a_message_has_the_wrong_value_and_the_allowed_ones(client: Client, scene: Scene) -> None:
    request: Any = RIGHT["CreateRate"](scene)
    request.rate.billing_increment = 0
    request.rate.cost_per_minute = "1,000.00"
    refusal, _ = complaints(client, "CreateRate", request)
    assert "86400" in refusal.violations["rate.billing_increment"].replace(",", "")
    assert "1,000.00" in refusal.violations["rate.cost_per_minute"]
    for field, words in refusal.violations.items():
        assert field in refusal.message
        assert words in refusal.message
