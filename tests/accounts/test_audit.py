"""The audit log: one entry for each administrative change, in its transaction, and none for others;
over both databases."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.world import NOON_NS, World, call, calls, chunk_of
from tollwire.service.accounts import audit
from tollwire.service.accounts.audit import AuditLog
from tollwire.service.accounts.credentials import Credentials
from tollwire.service.accounts.tokens import Tokens
from tollwire.service.domain.errors import InvalidInput, NotFound, TollwireError
from tollwire.service.domain.model import (
    Extension,
    ImportMode,
    Interval,
    Rate,
    ReversalRequest,
    Rounding,
    Token,
)
from tollwire.service.domain.model import Tenant as TenantModel
from tollwire.service.domain.record_model import AuditEntry, AuditFilter
from tollwire.service.domain.request import EVERY_TENANT, Caller, Request, Role, Scope
from tollwire.service.domain.thread_context import handling
from tollwire.service.storage.engine import Database

ANY = AuditFilter()
WHY = ReversalRequest("wrong switch", "Anna")


@pytest.fixture
def world(world: World) -> World:
    """With tenant 1, which has rate 1 and extension 1, and with tenant 2."""
    world.rate(world.tenant(), "44")
    world.extension(1)
    world.tenant()
    return world


@pytest.fixture
def log(database: Database) -> AuditLog:
    return AuditLog(database)


@pytest.fixture
def tokens(world: World) -> Iterator[Tokens]:
    credentials = Credentials(world.database)
    credentials.load()
    yield Tokens(world.database, credentials)
    credentials.close()


class Since:
    """The entries that a block creates, the oldest first."""

    def __init__(self, log: AuditLog) -> None:
        self._log = log
        self.entries: list[AuditEntry] = []

    def __enter__(self) -> Since:
        self._known = {entry.id for entry in self._all()}
        return self

    def __exit__(self, *_: object) -> None:
        self.entries = [entry for entry in self._all() if entry.id not in self._known]

    def _all(self) -> list[AuditEntry]:
        return self._log.list(ANY, 1000, "").items[::-1]

    @property
    def one(self) -> AuditEntry:
        (entry,) = self.entries
        return entry

    def shown(self) -> list[tuple[str, int, str]]:
        return [(entry.action, entry.tenant_id, entry.resource) for entry in self.entries]


def asked_by(*tenant_ids: int, name: str = "Ada", request_id: str = "r-1") -> Any:
    """The block runs as an administrator of these tenants, or of all."""
    scope = Scope(frozenset(tenant_ids)) if tenant_ids else EVERY_TENANT
    return handling(Request(Caller(name, Role.ADMIN, scope, token_id=77), request_id))


def test_an_entry_has_caller_action_and_both_states(world: World, log: AuditLog) -> None:
    rate = world.rates.get(1)
    changed = replace(rate, cost_per_minute_e8=1234_0000)
    with Since(log) as since, asked_by():
        changed = world.rates.update(changed, frozenset({"cost_per_minute_e8"}), "")
    entry = since.one
    assert (entry.caller, entry.token_id, entry.request_id) == ("Ada", 77, "r-1")
    assert (entry.action, entry.tenant_id, entry.resource) == ("UpdateRate", 1, "rate/1")
    assert entry.created_at_ns == changed.updated_at_ns
    before, after = json.loads(entry.before), json.loads(entry.after)
    assert (before["cost_per_minute"], after["cost_per_minute"]) == ("0.0600", "0.1234")
    assert (before["etag"], after["etag"]) == (rate.etag, changed.etag)
    assert before["prefix"] == after["prefix"] == "44"


def test_a_caller_without_a_token_is_local(world: World, log: AuditLog) -> None:
    with Since(log) as since:
        world.tenant()
    assert (since.one.caller, since.one.token_id, since.one.request_id) == ("local", 0, "")


def test_tenants(world: World, log: AuditLog) -> None:
    with Since(log) as since:
        tenant = world.tenants.create(TenantModel(name="Ecma", currency="EUR"))
        world.tenants.update(replace(tenant, name="Emca"), frozenset({"name"}))
        world.tenants.delete(tenant.id)
    assert since.shown() == [
        (action, 3, "tenant/3") for action in ("CreateTenant", "UpdateTenant", "DeleteTenant")
    ]
    created, updated, deleted = since.entries
    assert (created.before, deleted.after) == ("", "")
    assert created.after == updated.before == audit.as_json(tenant)
    assert updated.after == deleted.before == audit.as_json(replace(tenant, name="Emca"))


def test_extensions_without_their_numbers(world: World, log: AuditLog) -> None:
    with Since(log) as since:
        made = world.tenants.create_extension(Extension(0, 1, "442079460000", "Anna"))
        changed = replace(made, number="442079461111")
        world.tenants.update_extension(changed, frozenset({"number"}))
        world.tenants.delete_extension(made.id)
    assert since.shown() == [
        (action, 1, "extension/2")
        for action in ("CreateExtension", "UpdateExtension", "DeleteExtension")
    ]
    assert since.entries[0].after == '{"id":2,"name":"Anna","tenant_id":1}'
    assert not any("4420794" in entry.before + entry.after for entry in since.entries)


def test_rates(world: World, log: AuditLog) -> None:
    with Since(log) as since:
        rate = world.rate(2, "33")
        world.rates.update(replace(rate, prefix="34"), frozenset({"prefix"}), rate.etag)
        world.rates.delete(rate.id, "")
    assert since.shown() == [
        (action, 2, f"rate/{rate.id}") for action in ("CreateRate", "UpdateRate", "DeleteRate")
    ]


def test_a_deck_is_one_entry(world: World, log: AuditLog) -> None:
    deck = [Rate(prefix=prefix, cost_per_minute_e8=9_0000) for prefix in ("1", "2", "44")]
    with Since(log) as since:
        done = world.import_deck(1, ImportMode.REPLACE, False, deck)
    assert since.shown() == [("ImportRates", 1, "deck/1")]
    assert since.one.before == ""
    assert json.loads(since.one.after) == {
        "mode": "REPLACE",
        "created": 2,
        "updated": 1,
        "deleted": 0,
        "rate_revision": done.rate_revision,
    }


def test_calls_priced_late(world: World, log: AuditLog) -> None:
    world.cdrs.create(call(1, "99"))
    world.cdrs.create(call(1, "98"))
    world.rate(1, "99")
    with Since(log) as since:
        world.cdrs.rate_unrated(0, None, None)
        world.cdrs.rate_unrated(1, None, None)  # a second call prices nothing
    assert since.shown() == [("RateUnrated", 1, "tenant/1")]
    done = {"examined": 2, "rated": 1, "reason_corrected": 0}
    assert json.loads(since.one.after) == done


def test_reversals_without_their_reasons(world: World, log: AuditLog) -> None:
    upload_id = world.uploads.commit(0, 0, chunk_of(calls(1, 0, 3) + calls(2, 0, 2))).upload_id
    cdr = world.cdrs.create(call(1, call_id="alone"))
    with Since(log) as since:
        for _ in range(2):  # a second call changes nothing
            world.reversals.reverse_cdr(cdr.id, WHY)
            world.reversals.reverse_upload(upload_id, WHY)
    assert since.shown() == [
        ("ReverseCdr", 1, f"cdr/{cdr.id}"),
        ("ReverseUpload", 0, f"upload/{upload_id}"),
        ("ReverseUpload", 1, f"upload/{upload_id}"),
        ("ReverseUpload", 2, f"upload/{upload_id}"),
    ]
    closed, of_1, of_2 = since.entries[1:]
    assert "reversed_at" in json.loads(closed.after)
    assert [json.loads(one.after) for one in (of_1, of_2)] == [{"reversed": 3}, {"reversed": 2}]
    assert not any("switch" in entry.after for entry in since.entries)


def test_tokens_without_their_secrets(tokens: Tokens, log: AuditLog) -> None:
    with Since(log) as since:
        token, text = tokens.create(Token("switch", Role.INGEST, Scope(frozenset({1}))))
        tokens.create(Token("both", Role.READER, Scope(frozenset({1, 2}))))
        tokens.revoke(token.id)
        tokens.revoke(token.id)  # it is the token's text
        tokens.create_first("root")
    assert since.shown() == [
        ("CreateToken", 1, "token/1"),
        ("CreateToken", 0, "token/2"),
        ("RevokeToken", 1, "token/1"),
        ("CreateToken", 0, "token/3"),
    ]
    made, _, revoked, _ = since.entries
    shown = json.loads(made.after)
    assert made.after == revoked.before
    assert (shown["role"], shown["tenant_ids"], shown["every_tenant"]) == ("ingest", [1], False)
    assert "revoked_at" in json.loads(revoked.after)
    secret = text.rpartition("_")[2]
    assert not any(secret in entry.before + entry.after for entry in since.entries)


def test_a_request_that_changes_nothing_has_no_entry(world: World, log: AuditLog) -> None:
    rate, tenant = world.rates.get(1), world.tenants.get(1)
    extension = world.tenants.get_extension(1)
    with Since(log) as since:
        world.rates.update(rate, frozenset({"prefix"}), "")
        world.tenants.update(tenant, frozenset({"name"}))
        world.tenants.update_extension(extension, frozenset({"number"}))
        world.import_deck(1, ImportMode.MERGE, False, [replace(rate, tenant_id=0)])
        world.import_deck(1, ImportMode.REPLACE, True, [Rate(prefix="7")])
        world.import_deck(1, ImportMode.REPLACE, False, [])  # empties the deck
        world.import_deck(1, ImportMode.REPLACE, False, [])
        world.cdrs.create(call(1))
        world.uploads.commit(0, 0, chunk_of([call(1, call_id="x")]))
    assert since.shown() == [("ImportRates", 1, "deck/1")]


def test_a_refused_request_has_no_entry(world: World, log: AuditLog) -> None:
    world.cdrs.create(call(1, extension_id=1))
    with Since(log) as since:
        for refused in (
            lambda: world.rate(1, "44"),
            lambda: world.rates.delete(9, ""),
            lambda: world.rates.delete(1, "stale"),
            lambda: world.tenants.create(TenantModel(id=1)),
            lambda: world.tenants.delete(1),
            lambda: world.tenants.delete_extension(1),
            lambda: world.reversals.reverse_cdr(99, WHY),
        ):
            with pytest.raises(TollwireError):
                refused()
    assert since.entries == []


def test_a_rolled_back_change_has_no_entry(world: World, log: AuditLog) -> None:
    with (
        Since(log) as since,
        pytest.raises(ZeroDivisionError),
        world.database.write() as connection,
    ):
        audit.enter(connection, action="UpdateTenant", resource="tenant/1", now_ns=5, tenant_id=1)
        raise ZeroDivisionError
    assert since.entries == []


def test_entries_of_other_tenants_do_not_show(world: World, log: AuditLog, tokens: Tokens) -> None:
    tokens.create(Token("both", Role.READER, Scope(frozenset({1, 2}))))
    tenants = {entry.tenant_id for entry in log.list(ANY, 0, "").items}
    assert tenants == {0, 1, 2}
    with asked_by(2):
        assert [entry.resource for entry in log.list(ANY, 0, "").items] == ["tenant/2"]
        with pytest.raises(NotFound, match=r"no tenant 1$"):
            log.list(AuditFilter(tenant_id=1), 0, "")
    with asked_by(1, 2):
        assert {entry.tenant_id for entry in log.list(ANY, 0, "").items} == {1, 2}


def test_filters(world: World, log: AuditLog) -> None:
    tenant_id, other_id = world.tenant(), world.tenant()
    with world.database.write() as connection:
        for at_ns in (10, 20, 30):
            audit.enter(
                connection,
                action="Try",
                resource=f"try/{at_ns}",
                now_ns=at_ns,
                tenant_id=tenant_id,
            )

    def found(**fields: Any) -> list[str]:
        wanted: dict[str, Any] = {"tenant_id": tenant_id, "action": "Try"}
        items = log.list(AuditFilter(**(wanted | fields)), 0, "").items
        return [entry.resource for entry in items]

    assert found() == ["try/30", "try/20", "try/10"]
    assert found(created_after_ns=20) == ["try/30", "try/20"]
    assert found(created_before_ns=20) == ["try/10"]
    assert found(created_after_ns=20, created_before_ns=20) == []
    assert found(action="") == [*found(), f"tenant/{tenant_id}"]
    assert found(action="try") == found(tenant_id=other_id) == []
    assert found(tenant_id=0) == found()
    with pytest.raises(NotFound, match=r"no tenant 1000000000$"):
        found(tenant_id=10**9)


def test_pages(world: World, log: AuditLog) -> None:
    everything = log.list(ANY, 0, "").items
    shown: list[AuditEntry] = []
    token = ""
    while True:
        page = log.list(ANY, 3, token)
        assert len(page.items) <= 3
        shown += page.items
        world.tenant()  # newer than the page, so no later page has it
        token = page.next_page_token
        if not token:
            break
    assert shown == everything
    ids = [entry.id for entry in everything]
    assert ids == sorted(ids, reverse=True)
    with asked_by(1), pytest.raises(InvalidInput, match="page_token"):
        log.list(ANY, 3, log_token(log))


def log_token(log: AuditLog) -> str:
    with handling(Request()):
        return log.list(ANY, 1, "").next_page_token


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        (AuditFilter(tenant_id=-1), "tenant_id"),
        (AuditFilter(action="x" * 101), "action"),
        (AuditFilter(action="\0"), "action"),
        (AuditFilter(created_after_ns=2, created_before_ns=1), "created_before"),
    ],
)
def test_wrong_filters(log: AuditLog, wanted: AuditFilter, field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        log.list(wanted, 0, "")
    assert [violation.field for violation in refused.value.violations] == [field]


def test_canonical_json() -> None:
    rate = Rate(
        id=5,
        tenant_id=7,
        prefix="44",
        destination="Ü",
        cost_per_minute_e8=200_0000,
        intervals=(Interval(60, 100_0000, 6),),
        effective_from_ns=NOON_NS + 500_000_000,
        created_at_ns=NOON_NS,
        updated_at_ns=NOON_NS + 1,
        version_id=9,
    )
    assert audit.as_json(rate) == (
        '{"billing_increment":60,"blocked":false,"connect_fee":"0.0000","cost_per_minute":"0.0200",'
        '"created_at":"2026-03-02T10:00:00Z","destination":"Ü",'
        '"effective_from":"2026-03-02T10:00:00.500Z",'
        f'"etag":"{rate.etag}","id":5,'
        '"intervals":[{"billing_increment":6,"cost_per_minute":"0.0100","start_seconds":60}],'
        '"minimum_seconds":0,"prefix":"44","tenant_id":7,'
        '"updated_at":"2026-03-02T10:00:00.000000001Z"}'
    )
    tenant = TenantModel(id=1, name="A", rounding=Rounding.UP)
    assert json.loads(audit.as_json(tenant))["rounding"] == "UP"
    assert audit.as_json(None) == ""


def test_times_of_all_years() -> None:
    assert audit.time_text(-62_135_596_800 * 10**9) == "0001-01-01T00:00:00Z"
    last_ns = 253_402_300_799 * 10**9 + 999_999_999
    assert audit.time_text(last_ns) == "9999-12-31T23:59:59.999999999Z"
