"""Rating, recording and administering with clients that share no code with us."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.curl import Curl, Failed

INVALID_ARGUMENT, NOT_FOUND, ALREADY_EXISTS = 3, 5, 6
FAILED_PRECONDITION, ABORTED, OUT_OF_RANGE = 9, 10, 11

EXAMPLES = [
    ("OUTBOUND", "ANSWERED", "+44 20 7946 0000", 7, {"bill_seconds": "12", "cost": "0.0040"}),
    ("OUTBOUND", "ANSWERED", "447911123456", 63, {"bill_seconds": "66", "cost": "0.1650"}),
    ("OUTBOUND", "ANSWERED", "14155550123", 1, {"bill_seconds": "60", "cost": "0.0120"}),
    (
        *("OUTBOUND", "ANSWERED", "4930123456", 10),
        {"status": "RATING_STATUS_UNRATED", "unrated_reason": "UNRATED_REASON_NO_RATE"},
    ),
    (
        *("OUTBOUND", "BUSY", "447911123456", 0),
        {"status": "RATING_STATUS_NOT_BILLABLE", "bill_seconds": "0", "cost": "0.0000"},
    ),
    (
        *("INBOUND", "ANSWERED", "any number", 600),
        {"status": "RATING_STATUS_NOT_BILLABLE", "bill_seconds": "0", "cost": "0.0000"},
    ),
]


def call(tenant_id: str, number: str = "447911123456", seconds: int = 63, **more: Any) -> Any:
    return {
        "tenant_id": tenant_id,
        "destination_number": number,
        "duration_seconds": seconds,
        "direction": "DIRECTION_OUTBOUND",
        "disposition": "DISPOSITION_ANSWERED",
        "started_at": "2026-03-02T10:00:00Z",
    } | more


def examples(tenant_id: str) -> list[Any]:
    return [
        call(
            tenant_id,
            number,
            seconds,
            direction=f"DIRECTION_{direction}",
            disposition=f"DISPOSITION_{disposition}",
            call_id=f"e{index}",
        )
        for index, (direction, disposition, number, seconds, _) in enumerate(EXAMPLES)
    ]


def agree(answers: list[Any]) -> None:
    for answer, (*_, expected) in zip(answers, EXAMPLES, strict=True):
        assert {name: answer.get(name) for name in expected} == expected
        if "cost" not in expected:
            assert "cost" not in answer
            assert "bill_seconds" not in answer


def failure(curl: Curl, method: str, *messages: Any) -> Failed:
    with pytest.raises(Failed) as caught:
        curl.call(method, *messages)
    assert caught.value.domain == "tollwire"
    assert caught.value.message
    return caught.value


def test_the_worked_examples(curl: Curl, tenant_id: str) -> None:
    calls = examples(tenant_id)
    agree(curl.one("RatingService/BatchRateCalls", {"calls": calls})["rated"])
    parts = [{"calls": calls[:2]}, {"calls": calls[2:]}]
    answers = curl.call("RatingService/StreamRateCalls", *parts)
    assert [len(answer["rated"]) for answer in answers] == [2, 4]
    agree([rated for answer in answers for rated in answer["rated"]])
    agree([curl.one("CdrService/CreateCdr", {"call": one}) for one in calls])
    [rated] = curl.call("RatingService/RateCall", {"call": calls[1], "explain": True})
    assert rated["rated"]["cost"] == "0.1650"
    assert any("0.1650" in step["result"] for step in rated["explanation"]["steps"])


def test_an_error_has_its_reason_and_names_its_fields(curl: Curl, tenant_id: str) -> None:
    no_rate = failure(curl, "RatingService/RateCall", {"call": call(tenant_id, "4930")})
    assert (no_rate.code, no_rate.reason) == (NOT_FOUND, "NO_RATE")
    number = failure(curl, "RatingService/RateCall", {"call": call(tenant_id, "anonymous")})
    assert (number.code, number.reason) == (INVALID_ARGUMENT, "INVALID_NUMBER")
    assert number.fields == ["call.destination_number"]
    blocking = {
        "tenant_id": tenant_id,
        "prefix": "4490",
        "cost_per_minute": "1",
        "billing_increment": 60,
        "blocked": True,
    }
    made = curl.one("RatingService/CreateRate", {"rate": blocking})
    blocked = failure(curl, "RatingService/RateCall", {"call": call(tenant_id, "449012")})
    assert (blocked.code, blocked.reason) == (FAILED_PRECONDITION, "BLOCKED")
    assert blocked.metadata["rate_id"] == made["id"]
    again = failure(curl, "RatingService/CreateRate", {"rate": blocking})
    assert (again.code, again.reason) == (ALREADY_EXISTS, "RATE_EXISTS")
    bad = failure(
        curl,
        "RatingService/CreateRate",
        {"rate": {"tenant_id": tenant_id, "prefix": "x", "cost_per_minute": "1,000.00"}},
    )
    assert (bad.code, bad.reason) == (INVALID_ARGUMENT, "INVALID_FIELD")
    assert sorted(bad.fields) == [
        "rate.billing_increment",
        "rate.cost_per_minute",
        "rate.prefix",
    ]


def test_rates_are_administered(curl: Curl, tenant_id: str) -> None:
    listed = curl.one(
        "RatingService/ListRates", {"tenant_id": tenant_id, "page_size": 2, "search": "4"}
    )
    assert [rate["prefix"] for rate in listed["rates"]] == ["44", "447"]
    assert "next_page_token" not in listed
    rate = listed["rates"][0]
    assert curl.one("RatingService/GetRate", {"id": rate["id"]}) == rate
    change = {
        "rate": {"id": rate["id"], "cost_per_minute": "0.5", "etag": rate["etag"]},
        "update_mask": curl.mask("cost_per_minute"),
    }
    changed = curl.one("RatingService/UpdateRate", change)
    assert changed["cost_per_minute"] == "0.5000"
    stale = failure(curl, "RatingService/UpdateRate", change)
    assert (stale.code, stale.reason) == (ABORTED, "ETAG_MISMATCH")
    assert curl.one("RatingService/DeleteRate", {"id": rate["id"]}) == {}
    gone = failure(curl, "RatingService/GetRate", {"id": rate["id"]})
    assert (gone.code, gone.reason) == (NOT_FOUND, "RATE_NOT_FOUND")


def test_a_deck_goes_out_and_comes_back(curl: Curl, tenant_id: str) -> None:
    parts = curl.call("RatingService/ExportRates", {"tenant_id": tenant_id})
    rates = [rate for part in parts for rate in part["rates"]]
    assert [rate["prefix"] for rate in rates] == ["1", "44", "447"]
    head = {"tenant_id": tenant_id, "mode": "IMPORT_MODE_REPLACE"}
    messages = [head | {"rates": rates[:1]}, {"rates": rates[1:]}]
    again = curl.call("RatingService/ImportRates", *messages)
    assert [answer.get("unchanged") for answer in again] == ["3"]
    rates[2]["billing_increment"] = 0
    [rejected] = curl.call("RatingService/ImportRates", head | {"rates": rates})
    assert rejected["rejected"] == "1"
    assert [(error["index"], error["field"]) for error in rejected["errors"]] == [
        ("2", "billing_increment")
    ]


def test_pages_and_search(curl: Curl, tenant_id: str) -> None:
    for one in examples(tenant_id):
        curl.one("CdrService/CreateCdr", {"call": one})
    request = {"tenant_id": tenant_id, "page_size": 4}
    first = curl.one("CdrService/ListCdrs", request)
    rest = curl.one("CdrService/ListCdrs", request | {"page_token": first["next_page_token"]})
    call_ids = [cdr["call_id"] for cdr in first["cdrs"] + rest["cdrs"]]
    assert call_ids == ["e5", "e4", "e3", "e2", "e1", "e0"]
    assert "next_page_token" not in rest
    for search, found in [("inbound", ["e5"]), ("BUSY", ["e4"]), ("1415", ["e2"]), ("zz", None)]:
        page = curl.one("CdrService/ListCdrs", {"tenant_id": tenant_id, "search": search})
        assert [cdr["call_id"] for cdr in page.get("cdrs", [])] == (found or [])
    unrated = curl.one(
        "CdrService/ListCdrs", {"tenant_id": tenant_id, "status": "RATING_STATUS_UNRATED"}
    )
    assert [cdr["call_id"] for cdr in unrated["cdrs"]] == ["e3"]
    parts = curl.call("CdrService/ExportCdrs", {"tenant_id": tenant_id})
    assert [cdr["call_id"] for part in parts for cdr in part["cdrs"]] == call_ids
    bad = failure(curl, "CdrService/ListCdrs", {"tenant_id": tenant_id, "page_token": "x"})
    assert bad.fields == ["page_token"]


def test_cdrs_are_recorded_once(curl: Curl, tenant_id: str) -> None:
    one = call(tenant_id, call_id="once")
    cdr = curl.one("CdrService/CreateCdr", {"call": one})
    assert curl.one("CdrService/CreateCdr", {"call": one}) == cdr
    assert curl.one("CdrService/GetCdr", {"id": cdr["id"]}) == cdr
    assert cdr["rate"]["prefix"] == "447"
    conflict = failure(curl, "CdrService/CreateCdr", {"call": one | {"duration_seconds": 1}})
    assert (conflict.code, conflict.reason) == (ALREADY_EXISTS, "CDR_CONFLICT")
    assert conflict.metadata == {"cdr_id": cdr["id"], "fields": "duration_seconds"}
    unknown = failure(curl, "CdrService/GetCdr", {"id": "9223372036854775807"})
    assert (unknown.code, unknown.reason) == (NOT_FOUND, "CDR_NOT_FOUND")


def test_chunks_are_uploaded_from_json_lines(curl: Curl, tenant_id: str) -> None:
    calls = [call(tenant_id, call_id=f"u{index}") for index in range(5)]
    bad = call(tenant_id, call_id="bad", direction="DIRECTION_UNSPECIFIED")
    answers = curl.call(
        "CdrService/UploadCdrs",
        {"calls": calls[:3]},
        {"offset": 3, "calls": [bad, calls[0]]},
    )
    assert [answer["committed_offset"] for answer in answers] == ["3", "5"]
    assert answers[0]["created"] == "3"
    assert (answers[1]["rejected"], answers[1]["duplicates"]) == ("1", "1")
    assert answers[1]["failures"][0]["index"] == "3"
    assert answers[1]["failures"][0]["reason"] == "INVALID_FIELD"
    upload_id = answers[0]["upload_id"]
    gap = failure(curl, "CdrService/UploadCdrs", {"upload_id": upload_id, "offset": 9})
    assert (gap.code, gap.reason) == (OUT_OF_RANGE, "UPLOAD_GAP")
    assert gap.metadata["expected_offset"] == "5"
    [resumed] = curl.call(
        "CdrService/UploadCdrs", {"upload_id": upload_id, "offset": 5, "calls": calls[3:]}
    )
    assert resumed["committed_offset"] == "7"
    state = curl.one("CdrService/GetUpload", {"upload_id": upload_id})
    assert (state["created"], state["duplicates"], state["rejected"]) == ("5", "1", "1")


def test_the_unrated_are_rated_and_usage_is_added_up(curl: Curl, tenant_id: str) -> None:
    for one in examples(tenant_id):
        curl.one("CdrService/CreateCdr", {"call": one})
    query = {
        "tenant_id": tenant_id,
        "group_by": ["USAGE_DIMENSION_DAY", "USAGE_DIMENSION_DIRECTION"],
        "time_zone": "Asia/Kolkata",
    }
    rows = curl.one("CdrService/SummarizeUsage", query)["rows"]
    assert [row["keys"] for row in rows] == [["2026-03-02", "INBOUND"], ["2026-03-02", "OUTBOUND"]]
    assert rows[1]["cost"] == "0.1810"
    assert (rows[1]["calls"], rows[1]["answered"], rows[1]["unrated"]) == ("5", "4", "1")
    new = {"tenant_id": tenant_id, "prefix": "49", "cost_per_minute": "1", "billing_increment": 1}
    curl.one("RatingService/CreateRate", {"rate": new})
    done = curl.one("CdrService/RateUnrated", {"tenant_id": tenant_id})
    assert done == {"examined": "1", "rated": "1"}
    rows = curl.one("CdrService/SummarizeUsage", query)["rows"]
    assert rows[1]["cost"] == "0.3477"


def test_tenants_and_extensions_are_administered(curl: Curl, tenant_id: str) -> None:
    extension = curl.one(
        "TenantService/CreateExtension", {"extension": {"tenant_id": tenant_id, "number": "101"}}
    )
    same = {"id": extension["id"]}
    assert curl.one("TenantService/GetExtension", same) == extension
    listed = curl.one("TenantService/ListExtensions", {"tenant_id": tenant_id})
    assert listed["extensions"] == [extension]
    renamed = curl.one(
        "TenantService/UpdateExtension",
        {"extension": same | {"name": "B"}, "update_mask": curl.mask("name")},
    )
    assert (renamed["number"], renamed["name"]) == ("101", "B")
    curl.one("CdrService/CreateCdr", {"call": call(tenant_id, extension_id=extension["id"])})
    for method, message, reason in [
        ("DeleteExtension", same, "EXTENSION_IN_USE"),
        ("DeleteTenant", {"id": tenant_id}, "TENANT_IN_USE"),
    ]:
        used = failure(curl, f"TenantService/{method}", message)
        assert (used.code, used.reason) == (FAILED_PRECONDITION, reason)
    tenant = curl.one("TenantService/GetTenant", {"id": tenant_id})
    tenant["name"] = "Renamed"
    assert curl.one("TenantService/UpdateTenant", {"tenant": tenant}) == tenant
    pages = curl.one("TenantService/ListTenants", {"page_size": 1000})
    assert tenant in pages["tenants"]
    empty = curl.one("TenantService/CreateTenant", {"tenant": {}})
    assert curl.one("TenantService/DeleteTenant", {"id": empty["id"]}) == {}


def test_health(curl: Curl) -> None:
    for service in ("", "tollwire.v1.RatingService", "tollwire.v1.CdrService"):
        answer = curl.one("grpc.health.v1.Health/Check", {"service": service})
        assert answer == {"status": "SERVING"}
    with pytest.raises(Failed) as unknown:
        curl.one("grpc.health.v1.Health/Check", {"service": "nobody"})
    assert unknown.value.code == NOT_FOUND
