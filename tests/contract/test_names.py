"""Server reflection has every name that clients rely on."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.contract.curl import BufCurl, GrpCurl, camel, documents
from tests.contract.names import ENUMS, MESSAGES, METHODS

PAIRS = [(service, method) for service, methods in METHODS.items() for method in methods]


def test_services_and_methods_are_listed(buf: BufCurl) -> None:
    services = buf.list("services")
    assert {f"tollwire.v1.{name}" for name in METHODS} <= set(services)
    assert "grpc.health.v1.Health" in services
    assert any(name.startswith("grpc.reflection.v1") for name in services)
    methods = buf.list("methods")
    assert {f"tollwire.v1.{service}/{method}" for service, method in PAIRS} <= set(methods)


def fields_of(grpcurl: GrpCurl, symbol: str) -> list[str]:
    text = grpcurl.describe(symbol)
    return re.findall(r"(\w+) = \d+;", text)


@pytest.mark.external
@pytest.mark.parametrize("service", list(METHODS))
def test_a_service_has_its_methods_and_they_their_fields(grpcurl: GrpCurl, service: str) -> None:
    text = grpcurl.describe(f"tollwire.v1.{service}")
    for method, names in METHODS[service].items():
        found = re.search(
            rf"rpc {method} \( (stream )?\.([\w.]+) \) returns \( (stream )?\.([\w.]+) \)", text
        )
        assert found is not None, (method, text)
        sides = zip(names, found.group(1, 3), found.group(2, 4), strict=True)
        for wanted, stream, message in sides:
            takes = wanted.split()
            assert (takes[0] == "stream") == bool(stream), (method, message)
            takes = takes[1:] if stream else takes
            if takes[0][0].isupper():  # the resource itself, or Empty
                assert message.split(".")[-1] == takes[0]
            else:
                assert set(takes) <= set(fields_of(grpcurl, message)), message


@pytest.mark.external
@pytest.mark.parametrize("message", list(MESSAGES))
def test_a_message_has_its_fields(grpcurl: GrpCurl, message: str) -> None:
    assert set(MESSAGES[message].split()) <= set(fields_of(grpcurl, f"tollwire.v1.{message}"))


@pytest.mark.parametrize("enum", list(ENUMS))
def test_an_enum_has_its_values(grpcurl: GrpCurl, enum: str) -> None:
    prefix = re.sub("(?<!^)[A-Z]", lambda m: f"_{m[0]}", enum).upper()
    values = fields_of(grpcurl, f"tollwire.v1.{enum}")
    assert values[0] == f"{prefix}_UNSPECIFIED"
    assert {f"{prefix}_{name}" for name in ENUMS[enum].split()} <= set(values)


def test_the_json_names_of_resources_and_results(buf: BufCurl) -> None:
    """In JSON a field has the name of the protobuf mapping: "countryCode"."""

    def answer(method: str, message: dict[str, Any]) -> Any:
        text = buf.send(method, json.dumps(message), "--emit-defaults")
        [document] = documents(text)
        return document

    def has(document: dict[str, Any], names: str, *unset: str) -> None:
        assert {camel(name) for name in names.split()} - set(unset) <= set(document), document

    tenant = answer("TenantService/CreateTenant", {"tenant": {"name": "Acme"}})
    has(tenant, MESSAGES["Tenant"])
    extension = answer(
        "TenantService/CreateExtension",
        {"extension": {"tenantId": tenant["id"], "number": "101"}},
    )
    has(extension, MESSAGES["Extension"])
    interval = {"startSeconds": 60, "costPerMinute": "1", "billingIncrement": 1}
    rate = answer(
        "RatingService/CreateRate",
        {
            "rate": {
                "tenantId": tenant["id"],
                "prefix": "44",
                "costPerMinute": "0.1",
                "billingIncrement": 1,
                "connectFee": "0",
                "minimumSeconds": 0,
                "intervals": [interval],
                "effectiveFrom": "2020-01-01T00:00:00Z",
                "effectiveTo": "2100-01-01T00:00:00Z",
            }
        },
    )
    has(rate, MESSAGES["Rate"])
    has(rate["intervals"][0], MESSAGES["Interval"])
    call = {
        "tenantId": tenant["id"],
        "extensionId": extension["id"],
        "callerNumber": "101",
        "destinationNumber": "4420",
        "direction": "DIRECTION_OUTBOUND",
        "disposition": "DISPOSITION_ANSWERED",
        "durationSeconds": "60",
        "startedAt": "2026-03-02T10:00:00Z",
        "endedAt": "2026-03-02T10:01:00Z",
        "callId": "c-1",
    }
    sent = call | {"occurrence": 1}
    marks = {"unreadable"}  # of a line that could not be read
    assert set(sent) | marks == {camel(name) for name in MESSAGES["Call"].split()}
    rated = answer("RatingService/RateCall", {"call": sent, "explain": True})
    has(rated["rated"], MESSAGES["RatedCall"])
    assert rated["explanation"]["steps"]
    cdr = answer("CdrService/CreateCdr", {"call": sent})
    has(cdr, MESSAGES["Cdr"], "reversal")
    assert {name: cdr[name] for name in call} == call
    usage = answer("CdrService/SummarizeUsage", {"tenantId": tenant["id"]})
    has(usage["rows"][0], MESSAGES["UsageRow"])
    has(usage["rows"][0]["corrected"], MESSAGES["UsageTotals"])
    bad_call = {"tenantId": tenant["id"], "callId": "bad"}
    totals = {"calls": "1", "durationSeconds": "0"}
    upload = answer("CdrService/UploadCdrs", {"calls": [bad_call], "controlTotals": totals})
    assert (upload["settledTotals"], upload["controlTotalsMatch"]) == (totals, True)
    has(upload, METHODS["CdrService"]["UploadCdrs"][1].removeprefix("stream "))
    has(upload["failures"][0], MESSAGES["UploadFailure"])
    has(
        answer("CdrService/GetUpload", {"uploadId": upload["uploadId"]}),
        METHODS["CdrService"]["GetUpload"][1],
        "reversedAt",
    )
    deck = {"tenantId": tenant["id"], "mode": "IMPORT_MODE_MERGE", "rates": [{"prefix": "x"}]}
    imported = answer("RatingService/ImportRates", deck)
    has(imported, METHODS["RatingService"]["ImportRates"][1])
    has(imported["errors"][0], MESSAGES["ImportError"])
    why = {"reason": "a test", "requestedBy": "anna"}
    explained = answer("CdrService/ExplainCdr", {"id": cdr["id"]})
    has(explained, METHODS["CdrService"]["ExplainCdr"][1])
    has(explained["ledgerEntries"][0], MESSAGES["LedgerEntry"])
    counted = answer("CdrService/ReverseCdrs", {"tenantId": tenant["id"], "dryRun": True, **why})
    has(counted, METHODS["CdrService"]["ReverseCdrs"][1].removeprefix("stream "))
    has(counted["costs"][0], MESSAGES["ReversedCost"])
    reversal = answer("CdrService/ReverseCdr", {"id": cdr["id"], **why})
    has(reversal, MESSAGES["Reversal"])
    has(reversal["cdr"], MESSAGES["Cdr"], "reversal")
    taken_back = answer("CdrService/GetCdr", {"id": cdr["id"]})["reversal"]
    assert taken_back == reversal | {"cdr": None}
    reversals = answer("CdrService/ReverseUpload", {"uploadId": upload["uploadId"], **why})
    has(reversals, METHODS["CdrService"]["ReverseUpload"][1])
    has(
        answer("CdrService/GetUpload", {"uploadId": upload["uploadId"]}),
        METHODS["CdrService"]["GetUpload"][1],
    )
    has(
        answer("CdrService/ListReversals", {"tenantId": tenant["id"]}),
        METHODS["CdrService"]["ListReversals"][1],
    )
    unrated = answer("CdrService/RateUnrated", {"tenantId": tenant["id"]})
    has(unrated, METHODS["CdrService"]["RateUnrated"][1])
