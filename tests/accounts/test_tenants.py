"""Tenants and extensions, over both databases."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from tests.world import World, at_once, call
from tollwire.service.accounts.tenants import check_extension, check_tenant
from tollwire.service.domain.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidInput,
    NotFound,
    Reason,
    TollwireError,
)
from tollwire.service.domain.model import MAX_ID, Extension, Rounding, Tenant
from tollwire.service.storage import tenants as storage
from tollwire.service.storage.engine import Database

_ALL = frozenset(
    {"name", "currency", "rounding", "country_code", "national_prefix", "international_prefix"}
)


def _failure(kind: type[TollwireError], reason: Reason, action: Any, *values: Any) -> TollwireError:
    with pytest.raises(kind) as raised:
        action(*values)
    assert raised.value.reason == reason
    return raised.value


def _wrong_fields(action: Any, *values: Any) -> list[str]:
    with pytest.raises(InvalidInput) as raised:
        action(*values)
    assert raised.value.reason == Reason.INVALID_FIELD
    return [violation.field for violation in raised.value.violations]


class TestChecks:
    """Checks without a database."""

    @pytest.mark.parametrize(
        "tenant",
        [
            Tenant(),
            Tenant(id=MAX_ID, name="x" * 200, currency="JPY", rounding=Rounding.DOWN),
            Tenant(country_code="1", national_prefix="1", international_prefix="011"),
            Tenant(
                country_code="1234", national_prefix="12345678", international_prefix="00000000"
            ),
            Tenant(name="Ä\n😀"),
        ],
    )
    def test_good_tenants(self, tenant: Tenant) -> None:
        assert check_tenant(tenant) == []

    @pytest.mark.parametrize(
        ("fields", "wrong"),
        [
            ({"id": -1}, "id"),
            ({"name": "x" * 201}, "name"),
            ({"name": "a\0b"}, "name"),
            ({"currency": ""}, "currency"),
            ({"currency": "usd"}, "currency"),
            ({"currency": "USDX"}, "currency"),
            ({"currency": "XYZ"}, "currency"),
            ({"currency": "US\0"}, "currency"),
            ({"country_code": "12345"}, "country_code"),
            ({"country_code": "+1"}, "country_code"),
            ({"country_code": "٣"}, "country_code"),
            ({"country_code": "1", "national_prefix": "123456789"}, "national_prefix"),
            ({"country_code": "1", "national_prefix": "0x"}, "national_prefix"),
            ({"national_prefix": "0"}, "country_code"),
            ({"international_prefix": "000000000"}, "international_prefix"),
            ({"international_prefix": "0\n"}, "international_prefix"),
        ],
    )
    def test_bad_tenants(self, fields: dict[str, Any], wrong: str) -> None:
        assert [violation.field for violation in check_tenant(Tenant(**fields))] == [wrong]

    def test_all_wrong_fields_are_named_at_once(self) -> None:
        found = check_tenant(Tenant(id=-1, name="\0", currency="x", country_code="x"))
        assert {wrong.field for wrong in found} == {"id", "name", "currency", "country_code"}

    @pytest.mark.parametrize(
        ("fields", "wrong"),
        [
            ({"id": -1}, "id"),
            ({"tenant_id": 0}, "tenant_id"),
            ({"tenant_id": -1}, "tenant_id"),
            ({"number": ""}, "number"),
            ({"number": "x" * 65}, "number"),
            ({"number": "1\0"}, "number"),
            ({"name": "x" * 201}, "name"),
            ({"name": "\0"}, "name"),
        ],
    )
    def test_bad_extensions(self, fields: dict[str, Any], wrong: str) -> None:
        extension = replace(Extension(tenant_id=1, number="101"), **fields)
        assert [violation.field for violation in check_extension(extension)] == [wrong]


class TestTenants:
    def test_a_tenant_is_created_and_found_again(self, world: World) -> None:
        sent = Tenant(
            name="Öl & Söhne",
            currency="EUR",
            rounding=Rounding.UP,
            country_code="49",
            national_prefix="0",
            international_prefix="00",
        )
        created = world.tenants.create(sent)
        assert created == replace(sent, id=1, created_at_ns=created.created_at_ns)
        assert created.created_at_ns > 0
        assert world.tenants.get(1) == created
        assert world.tenants.create(Tenant()).id == 2

    def test_its_own_id_is_kept_and_never_given_again(self, world: World) -> None:
        assert world.tenants.create(Tenant(id=10)).id == 10
        assert world.tenants.create(Tenant(id=4)).id == 4
        assert world.tenants.create(Tenant()).id == 11
        world.tenants.delete(11)
        assert world.tenants.create(Tenant()).id == 12

    def test_the_greatest_id_leaves_ids_for_others(self, world: World) -> None:
        assert world.tenants.create(Tenant(id=MAX_ID)).id == MAX_ID
        assert world.tenants.create(Tenant()).id == 1

    def test_a_taken_id_is_refused(self, world: World) -> None:
        world.tenants.create(Tenant(id=5, name="first"))
        error = _failure(
            AlreadyExists, Reason.TENANT_EXISTS, world.tenants.create, Tenant(id=5, name="second")
        )
        assert error.metadata == {"tenant_id": "5"}
        assert world.tenants.get(5).name == "first"

    def test_of_two_at_once_with_one_id_one_is_created(self, database: Database) -> None:
        worlds = [World.over(database) for _ in range(4)]
        results = at_once(*(lambda one=one: one.tenants.create(Tenant(id=5)) for one in worlds))
        created = [result for result in results if isinstance(result, Tenant)]
        refused = [result for result in results if isinstance(result, AlreadyExists)]
        assert (len(created), len(refused)) == (1, 3)

    def test_many_at_once_get_ids_of_their_own(self, database: Database) -> None:
        worlds = [World.over(database) for _ in range(4)]
        results = at_once(*(lambda one=one: one.tenants.create(Tenant()).id for one in worlds))
        assert sorted(results) == [1, 2, 3, 4]

    def test_a_wrong_field_is_named_by_its_path(self, world: World) -> None:
        assert _wrong_fields(world.tenants.create, Tenant(currency="x", national_prefix="0")) == [
            "tenant.currency",
            "tenant.country_code",
        ]
        assert _wrong_fields(world.tenants.get, 0) == ["id"]
        assert _wrong_fields(world.tenants.get, -1) == ["id"]
        assert _wrong_fields(world.tenants.delete, 0) == ["id"]
        assert _wrong_fields(world.tenants.update, Tenant(), _ALL) == ["tenant.id"]

    def test_an_unknown_tenant(self, world: World) -> None:
        for action in (world.tenants.get, world.tenants.delete):
            error = _failure(NotFound, Reason.TENANT_NOT_FOUND, action, 7)
            assert error.metadata == {"tenant_id": "7"}
        _failure(NotFound, Reason.TENANT_NOT_FOUND, world.tenants.update, Tenant(id=7), frozenset())

    def test_pages_by_rising_id(self, world: World) -> None:
        assert world.tenants.list(0, "").items == []
        for tenant_id in (5, 3, 9, 7, 1):
            world.tenants.create(Tenant(id=tenant_id))
        seen, token = [], ""
        for _ in range(3):
            page = world.tenants.list(2, token)
            seen += [tenant.id for tenant in page.items]
            token = page.next_page_token
        assert seen == [1, 3, 5, 7, 9]
        assert token == ""
        assert len(world.tenants.list(5, "").items) == 5
        assert world.tenants.list(5, "").next_page_token == ""

    def test_an_update_takes_the_named_fields_only(self, world: World) -> None:
        before = world.tenants.create(Tenant(name="old", currency="EUR"))
        sent = Tenant(id=1, name="new", currency="GBP", rounding=Rounding.DOWN)
        after = world.tenants.update(sent, frozenset({"name", "rounding"}))
        assert after == replace(before, name="new", rounding=Rounding.DOWN)
        assert world.tenants.get(1) == after

    def test_the_result_of_an_update_is_checked(self, world: World) -> None:
        world.tenants.create(Tenant(country_code="49", national_prefix="0"))
        wrong = _wrong_fields(world.tenants.update, Tenant(id=1), frozenset({"country_code"}))
        assert wrong == ["tenant.country_code"]
        # A field outside the mask may be wrong.
        bad = Tenant(id=1, name="new", currency="nonsense")
        assert world.tenants.update(bad, frozenset({"name"})).name == "new"

    def test_an_update_that_changes_nothing_is_no_change_of_the_deck(self, world: World) -> None:
        tenant = world.tenants.create(Tenant(name="same"))
        revision = world.decks.deck(1).revision
        assert world.tenants.update(tenant, _ALL) == tenant
        assert world.decks.deck(1).revision == revision
        world.tenants.update(replace(tenant, name="other"), _ALL)
        assert world.decks.deck(1).revision == revision + 1

    def test_the_currency_is_fixed_once_there_are_cdrs(self, world: World) -> None:
        world.tenants.create(Tenant())
        world.tenants.update(Tenant(id=1, currency="EUR"), frozenset({"currency"}))
        world.cdrs.create(call(1))
        error = _failure(
            *(FailedPrecondition, Reason.CURRENCY_IN_USE, world.tenants.update),
            *(Tenant(id=1, currency="GBP", name="new"), frozenset({"currency", "name"})),
        )
        assert error.metadata == {"tenant_id": "1", "currency": "EUR"}
        assert world.tenants.get(1).name == ""
        same = Tenant(id=1, currency="EUR", name="new")
        assert world.tenants.update(same, frozenset({"currency", "name"})).name == "new"

    def test_a_rounding_holds_for_calls_from_then_on(self, world: World) -> None:
        tenant_id = world.tenant()
        world.rate(tenant_id, "44", cost_e4=50, increment=1)  # 7 s: 5.83 ten-thousandths
        before = world.cdrs.create(call(tenant_id, call_id="a"))
        world.tenants.update(Tenant(id=tenant_id, rounding=Rounding.DOWN), frozenset({"rounding"}))
        after = world.cdrs.create(call(tenant_id, call_id="b"))
        assert (before.cost_e8, after.cost_e8) == (6_0000, 5_0000)
        assert world.cdrs.get(before.id) == before
        assert (before.tenant.rounding, after.tenant.rounding) == (Rounding.HALF_UP, Rounding.DOWN)

    def test_a_tenant_goes_with_its_rates_and_extensions(self, world: World) -> None:
        tenant_id = world.tenant()
        rate = world.rate(tenant_id, "44")
        extension_id = world.extension(tenant_id)
        world.tenants.delete(tenant_id)
        _failure(NotFound, Reason.TENANT_NOT_FOUND, world.tenants.get, tenant_id)
        _failure(NotFound, Reason.RATE_NOT_FOUND, world.rates.get, rate.id)
        _failure(NotFound, Reason.EXTENSION_NOT_FOUND, world.tenants.get_extension, extension_id)
        _failure(NotFound, Reason.TENANT_NOT_FOUND, world.decks.deck, tenant_id)
        assert world.rates.list(0, "", 0, "").items == []

    def test_a_tenant_created_again_starts_without_rates(self, world: World) -> None:
        world.tenants.create(Tenant(id=5, name="first"))
        world.rate(5, "44")
        revision = world.decks.deck(5).revision
        world.tenants.delete(5)
        world.tenants.create(Tenant(id=5, name="second"))
        deck = world.decks.deck(5)
        assert (deck.tenant.name, len(deck.deck)) == ("second", 0)
        assert deck.revision > revision + 1

    def test_a_tenant_with_cdrs_stays(self, world: World) -> None:
        tenant_id = world.tenant()
        rate = world.rate(tenant_id, "44")
        world.cdrs.create(call(tenant_id))
        error = _failure(FailedPrecondition, Reason.TENANT_IN_USE, world.tenants.delete, tenant_id)
        assert error.metadata == {"tenant_id": str(tenant_id)}
        assert world.rates.get(rate.id) == rate


class TestExtensions:
    def test_an_extension_is_created_and_found_again(self, world: World) -> None:
        tenant_id = world.tenant()
        sent = Extension(tenant_id=tenant_id, number="+49 (0) 7", name="Empfang")
        created = world.tenants.create_extension(sent)
        assert created == replace(sent, id=1)
        assert world.tenants.get_extension(1) == created

    def test_its_own_id_is_kept_and_never_given_again(self, world: World) -> None:
        tenant_id = world.tenant()
        own = Extension(id=10, tenant_id=tenant_id, number="1")
        assert world.tenants.create_extension(own).id == 10
        error = _failure(
            AlreadyExists, Reason.EXTENSION_EXISTS, world.tenants.create_extension, own
        )
        assert error.metadata == {"extension_id": "10"}
        assert world.extension(tenant_id) == 11

    def test_two_extensions_may_have_one_number(self, world: World) -> None:
        tenant_id = world.tenant()
        assert world.extension(tenant_id, "101") != world.extension(tenant_id, "101")

    def test_it_needs_a_tenant(self, world: World) -> None:
        orphan = Extension(tenant_id=7, number="1")
        _failure(NotFound, Reason.TENANT_NOT_FOUND, world.tenants.create_extension, orphan)

    def test_a_wrong_field_is_named_by_its_path(self, world: World) -> None:
        assert _wrong_fields(world.tenants.create_extension, Extension()) == [
            "extension.tenant_id",
            "extension.number",
        ]
        assert _wrong_fields(world.tenants.get_extension, 0) == ["id"]
        assert _wrong_fields(world.tenants.list_extensions, -1, 0, "") == ["tenant_id"]

    def test_pages_of_one_tenant_or_of_all(self, world: World) -> None:
        first, second = world.tenant(), world.tenant()
        ids = [world.extension(owner) for owner in (first, second, first, second, first)]
        page = world.tenants.list_extensions(first, 2, "")
        assert [extension.id for extension in page.items] == [ids[0], ids[2]]
        rest = world.tenants.list_extensions(first, 2, page.next_page_token)
        assert [extension.id for extension in rest.items] == [ids[4]]
        assert rest.next_page_token == ""
        assert len(world.tenants.list_extensions(0, 0, "").items) == 5
        assert _wrong_fields(world.tenants.list_extensions, second, 2, page.next_page_token) == [
            "page_token"
        ]

    def test_an_update(self, world: World) -> None:
        tenant_id = world.tenant()
        extension_id = world.extension(tenant_id, "101")
        sent = Extension(id=extension_id, number="102", name="new")
        after = world.tenants.update_extension(sent, frozenset({"name"}))
        assert after == Extension(extension_id, tenant_id, "101", "new")
        owned = replace(sent, tenant_id=tenant_id)
        assert world.tenants.update_extension(owned, frozenset({"number", "name"})) == owned
        assert world.tenants.get_extension(extension_id) == owned

    def test_an_update_that_is_refused(self, world: World) -> None:
        tenant_id = world.tenant()
        extension_id = world.extension(tenant_id)
        stranger = Extension(id=extension_id, tenant_id=tenant_id + 1, number="1")
        update = world.tenants.update_extension
        assert _wrong_fields(update, stranger, frozenset({"name"})) == ["extension.tenant_id"]
        empty = Extension(id=extension_id)
        assert _wrong_fields(update, empty, frozenset({"number"})) == ["extension.number"]
        unknown = Extension(id=99, number="1")
        _failure(NotFound, Reason.EXTENSION_NOT_FOUND, update, unknown, frozenset({"number"}))

    def test_an_extension_without_cdrs_goes(self, world: World) -> None:
        extension_id = world.extension(world.tenant())
        world.tenants.delete_extension(extension_id)
        for action in (world.tenants.get_extension, world.tenants.delete_extension):
            error = _failure(NotFound, Reason.EXTENSION_NOT_FOUND, action, extension_id)
            assert error.metadata == {"extension_id": str(extension_id)}

    def test_an_extension_with_cdrs_stays(self, world: World) -> None:
        tenant_id = world.tenant()
        extension_id = world.extension(tenant_id)
        world.cdrs.create(call(tenant_id, extension_id=extension_id))
        _failure(
            *(FailedPrecondition, Reason.EXTENSION_IN_USE),
            *(world.tenants.delete_extension, extension_id),
        )
        assert world.tenants.get_extension(extension_id).id == extension_id


def test_calls_and_deletions_at_once_leave_no_orphan(database: Database, database_url: str) -> None:
    """Either the call is recorded and the tenant stays, or the tenant is deleted and the call is
    refused."""
    other = Database(database_url)
    try:
        recorder, deleter = World.over(database), World.over(other)
        for _ in range(10):
            tenant_id = recorder.tenant()
            extension_id = recorder.extension(tenant_id)
            recorded, deleted = at_once(
                partial(recorder.cdrs.create, call(tenant_id, extension_id=extension_id)),
                partial(deleter.tenants.delete, tenant_id),
            )
            if deleted is None:
                assert isinstance(recorded, NotFound), recorded
            else:
                assert isinstance(deleted, FailedPrecondition), deleted
                assert recorder.cdrs.get(recorded.id).extension is not None
    finally:
        other.close()


def test_a_call_committed_after_all_checks_keeps_its_tenant_and_extension(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The triggers of the database refuse the deletion."""
    tenant_id = world.tenant()
    extension_id = world.extension(tenant_id)
    world.cdrs.create(call(tenant_id, extension_id=extension_id))
    monkeypatch.setattr(storage, "has_cdrs", lambda *_: False)
    monkeypatch.setattr(storage, "extension_has_cdrs", lambda *_: False)
    _failure(
        *(FailedPrecondition, Reason.EXTENSION_IN_USE),
        *(world.tenants.delete_extension, extension_id),
    )
    _failure(FailedPrecondition, Reason.TENANT_IN_USE, world.tenants.delete, tenant_id)
    assert world.tenants.get_extension(extension_id).tenant_id == tenant_id
