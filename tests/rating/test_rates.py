"""Rates one by one, over both databases."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.world import World, at_once, call
from tollwire.service.domain import paging
from tollwire.service.domain.errors import (
    Aborted,
    AlreadyExists,
    InvalidInput,
    NotFound,
    Reason,
    TollwireError,
)
from tollwire.service.domain.model import MAX_TIMESTAMP_NS, MIN_TIMESTAMP_NS, Interval, Rate
from tollwire.service.storage.engine import Database

_FIELDS = (
    "prefix",
    "destination",
    "cost_per_minute_e8",
    "billing_increment",
    "connect_fee_e8",
    "minimum_seconds",
    "intervals",
    "effective_from_ns",
    "effective_to_ns",
    "blocked",
)
_ALL = frozenset(_FIELDS)
_FULL = Rate(
    tenant_id=1,
    prefix="447",
    destination="Großbritannien, mobil",
    cost_per_minute_e8=1500_0000,
    billing_increment=6,
    connect_fee_e8=10_0000_0000,
    minimum_seconds=30,
    intervals=(Interval(60, 1000, 1), Interval(3600, 0, 60)),
    effective_from_ns=MIN_TIMESTAMP_NS,
    effective_to_ns=MAX_TIMESTAMP_NS,
    blocked=True,
)


# The search term, and the prefixes of the rates that are found.
_SEARCHES: dict[str, list[str]] = {
    "": ["1", "44", "447", "49"],
    "4": ["44", "447", "49"],
    "47": ["447"],
    "uk": ["44", "447"],
    "MOBILE": ["447"],
    "österreich": ["49"],
    "ÖSTERREICH": ["49"],
    "Österreich": ["49"],
    "ж": ["1"],
    "Ж": ["1"],
    "100%": ["1"],
    "_": ["1"],
    "%": ["1"],
    "a_b": ["1"],
    "axb": [],
    "\\": ["44"],
    "[x]": ["44"],
    "x": ["44"],
    "*": ["447"],
    "?": ["447"],
    ".": [],
    "^": ["49"],
    "$": ["49"],
    "(": ["49"],
    "{2}": ["49"],
    "'": ["49"],
    "|": [],
    "nothing": [],
    "x" * 256: [],
}


def _failure(kind: type[TollwireError], reason: Reason, action: Any, *values: Any) -> TollwireError:
    with pytest.raises(kind) as raised:
        action(*values)
    assert raised.value.reason == reason
    return raised.value


def _wrong_fields(action: Any, *values: Any) -> list[str]:
    with pytest.raises(InvalidInput) as raised:
        action(*values)
    return [violation.field for violation in raised.value.violations]


def _versions(world: World) -> list[tuple[Any, ...]]:
    with world.database.read() as connection:
        rows = connection.exec_driver_sql(
            "SELECT version_id, rate_id, created_revision, retired_revision, cost_per_minute_e8"
            " FROM rate_versions ORDER BY version_id"
        )
        return [tuple(row) for row in rows]


class TestCreate:
    def test_every_field_is_kept(self, world: World) -> None:
        created = world.rates.create(_FULL)
        now_ns = created.created_at_ns
        assert created == replace(
            _FULL, id=1, version_id=1, created_at_ns=now_ns, updated_at_ns=now_ns
        )
        assert now_ns > 0
        assert created.etag == "v1"
        assert world.rates.get(1) == created

    def test_the_server_picks_the_id(self, world: World) -> None:
        assert world.rates.create(Rate(id=77, tenant_id=1, prefix="1")).id == 1
        assert world.rates.create(Rate(tenant_id=2, prefix="1")).id == 2

    def test_the_prefix_is_normalised(self, world: World) -> None:
        assert world.rate(1, "+4420").prefix == "4420"

    def test_a_wrong_field_is_named_by_its_path(self, world: World) -> None:
        bad = Rate(prefix="x", billing_increment=0, intervals=(Interval(0, 1, 1),))
        assert _wrong_fields(world.rates.create, bad) == [
            "rate.tenant_id",
            "rate.prefix",
            "rate.billing_increment",
            "rate.intervals[0].start_seconds",
        ]

    def test_an_unknown_tenant(self, world: World) -> None:
        error = _failure(NotFound, Reason.TENANT_NOT_FOUND, world.rates.create, Rate(tenant_id=9))
        assert error.metadata == {"tenant_id": "9"}

    def test_a_second_one_with_prefix_and_start_is_refused(self, world: World) -> None:
        first = world.rate(1, "44", effective_from_ns=5)
        again = Rate(tenant_id=1, prefix="+44", effective_from_ns=5, effective_to_ns=9)
        error = _failure(AlreadyExists, Reason.RATE_EXISTS, world.rates.create, again)
        assert error.metadata == {"rate_id": str(first.id), "tenant_id": "1"}
        world.rate(1, "44", effective_from_ns=6)
        world.rate(1, "44")
        world.rate(2, "44", effective_from_ns=5)
        _failure(
            AlreadyExists, Reason.RATE_EXISTS, world.rates.create, Rate(tenant_id=1, prefix="44")
        )

    @pytest.mark.parametrize("workers", ["one", "two"])
    def test_of_two_at_once_one_is_created(
        self, world: World, database_url: str, workers: str
    ) -> None:
        other = Database(database_url)
        try:
            second = World.over(other) if workers == "two" else world
            for prefix in ("1", "2", "3"):
                results = at_once(
                    *(lambda one=one, p=prefix: one.rate(1, p) for one in (world, second) * 2)
                )
                kinds = sorted(type(result).__name__ for result in results)
                assert kinds == ["AlreadyExists"] * 3 + ["Rate"]
            world.decks.refresh()
            assert world.decks.deck(1).revision == 4
        finally:
            other.close()

    def test_it_is_rated_with_at_once(self, world: World) -> None:
        revision = world.decks.deck(1).revision
        world.rate(1, "44")
        deck = world.decks.deck(1)
        assert (deck.revision, len(deck.deck)) == (revision + 1, 1)


class TestList:
    def test_the_order_is_tenant_prefix_and_start(self, world: World) -> None:
        made = [
            world.rate(tenant, prefix, effective_from_ns=start)
            for tenant, prefix, start in (
                (2, "1", None),
                (1, "9", None),
                (1, "44", 7),
                (1, "44", None),
                (1, "44", MIN_TIMESTAMP_NS),
                (1, "44", 1_500_000_000),
                (1, "", None),
                (1, "447", None),
            )
        ]
        expected = sorted(
            made,
            key=lambda rate: (
                rate.tenant_id,
                rate.prefix,
                float("-inf") if rate.effective_from_ns is None else rate.effective_from_ns,
            ),
        )
        assert world.rates.list(0, "", 0, "").items == expected
        assert world.rates.list(1, "", 0, "").items == expected[:-1]
        for tenant_id, of_tenant in ((0, expected), (1, expected[:-1])):
            seen: list[Rate] = []
            token = ""
            while True:
                page = world.rates.list(tenant_id, "", 3, token)
                seen += page.items
                token = page.next_page_token
                if not token:
                    break
                assert len(page.items) == 3
            assert seen == of_tenant

    def test_pages_continue_during_changes(self, world: World) -> None:
        rates = [world.rate(1, prefix) for prefix in ("1", "2", "3", "4")]
        page = world.rates.list(1, "", 2, "")
        world.rates.delete(rates[1].id, "")
        world.rate(1, "0")
        world.rate(1, "35")
        rest = world.rates.list(1, "", 2, page.next_page_token)
        assert [rate.prefix for rate in rest.items] == ["3", "35"]

    def test_a_page_of_large_rates_ends_early(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(paging, "MAX_PAGE_BYTES", 3000)
        for prefix in ("1", "2", "3", "4"):
            world.rate(1, prefix, destination="é" * 200)
        page = world.rates.list(1, "", 1000, "")
        assert 1 <= len(page.items) < 4
        assert page.next_page_token

    def test_search(self, world: World) -> None:
        for prefix, destination in (
            ("1", "100% a_b Ж"),
            ("44", "UK back\\slash [x]"),
            ("447", "UK Mobile *?"),
            ("49", "Österreich ^$( {2} '"),
        ):
            world.rate(1, prefix, destination=destination)
        world.rate(2, "44", destination="UK of another tenant")
        found = {
            search: [rate.prefix for rate in world.rates.list(1, search, 0, "").items]
            for search in _SEARCHES
        }
        assert found == _SEARCHES

    def test_a_token_is_valid_for_its_own_search_only(self, world: World) -> None:
        for prefix in ("1", "2", "3"):
            world.rate(1, prefix)
        token = world.rates.list(1, "", 1, "").next_page_token
        for tenant_id, search in ((0, ""), (2, ""), (1, "1")):
            assert _wrong_fields(world.rates.list, tenant_id, search, 1, token) == ["page_token"]

    def test_wrong_fields_are_refused(self, world: World) -> None:
        wrong = _wrong_fields(world.rates.list, -1, "x" * 257 + "\0", 0, "")
        assert wrong == ["tenant_id", "search", "search"]
        assert _wrong_fields(world.rates.list, 1, "", -1, "") == ["page_size"]


class TestUpdate:
    def test_the_named_fields_change_and_old_versions_are_kept(self, world: World) -> None:
        before = world.rates.create(_FULL)
        sent = Rate(id=1, cost_per_minute_e8=7_0000, destination="new", blocked=False)
        after = world.rates.update(sent, frozenset({"cost_per_minute_e8", "blocked"}), "")
        assert after == replace(
            before,
            cost_per_minute_e8=7_0000,
            blocked=False,
            version_id=2,
            updated_at_ns=after.updated_at_ns,
        )
        assert after.updated_at_ns > before.updated_at_ns
        assert world.rates.get(1) == after
        assert _versions(world) == [(1, 1, 2, 3, 1500_0000), (2, 1, 3, None, 7_0000)]

    @pytest.mark.parametrize("field", _FIELDS)
    def test_each_field_can_be_changed_and_emptied(self, world: World, field: str) -> None:
        world.rates.create(_FULL)
        other = Rate(
            id=1,
            prefix="1",
            destination="other",
            cost_per_minute_e8=1_0000,
            billing_increment=1,
            connect_fee_e8=1_0000,
            minimum_seconds=1,
            intervals=(Interval(1, 1, 1),),
            effective_from_ns=1,
            effective_to_ns=2,
        )
        for sent in (other, Rate(id=1)):
            after = world.rates.update(sent, frozenset({field}), "")
            assert getattr(after, field) == getattr(sent, field)
            assert getattr(world.rates.get(1), field) == getattr(sent, field)

    def test_all_fields_at_once(self, world: World) -> None:
        created = world.rates.create(_FULL)
        after = world.rates.update(Rate(id=1, prefix="+1"), _ALL, created.etag)
        assert after == Rate(
            id=1,
            tenant_id=1,
            prefix="1",
            version_id=2,
            created_at_ns=created.created_at_ns,
            updated_at_ns=after.updated_at_ns,
        )

    def test_an_update_without_a_change_keeps_the_etag(self, world: World) -> None:
        created = world.rates.create(_FULL)
        revision = world.decks.deck(1).revision
        assert world.rates.update(replace(created, prefix="+447"), _ALL, created.etag) == created
        assert world.rates.update(created, frozenset(), "") == created
        assert world.decks.deck(1).revision == revision

    def test_a_stale_etag_is_refused(self, world: World) -> None:
        created = world.rate(1, "44")
        sent = replace(created, cost_per_minute_e8=1_0000)
        updated = world.rates.update(sent, _ALL, created.etag)
        for etag in (created.etag, "v999", "nonsense", "V2"):
            error = _failure(
                *(Aborted, Reason.ETAG_MISMATCH, world.rates.update),
                *(replace(sent, cost_per_minute_e8=2_0000), _ALL, etag),
            )
            assert error.metadata == {"rate_id": "1", "etag": updated.etag}
        assert world.rates.get(1) == updated

    def test_of_two_at_once_with_one_etag_one_wins(self, world: World, database_url: str) -> None:
        created = world.rate(1, "44")
        other = Database(database_url)
        try:
            worlds = (world, World.over(other))
            results = at_once(
                *(
                    lambda one=one, cost=cost: one.rates.update(
                        replace(created, cost_per_minute_e8=cost), _ALL, created.etag
                    )
                    for one, cost in zip(worlds * 2, (1, 2, 3, 4), strict=True)
                )
            )
            kinds = sorted(type(result).__name__ for result in results)
            assert kinds == ["Aborted"] * 3 + ["Rate"]
        finally:
            other.close()

    def test_it_may_not_take_the_prefix_and_start_of_another(self, world: World) -> None:
        first = world.rate(1, "44")
        second = world.rate(1, "49", effective_from_ns=5)
        taken = frozenset({"prefix", "effective_from_ns"})
        error = _failure(
            *(AlreadyExists, Reason.RATE_EXISTS, world.rates.update),
            *(Rate(id=second.id, prefix="44"), taken, ""),
        )
        assert error.metadata["rate_id"] == str(first.id)
        assert world.rates.get(second.id) == second
        moved = world.rates.update(Rate(id=second.id, prefix="44"), frozenset({"prefix"}), "")
        assert (moved.prefix, moved.effective_from_ns) == ("44", 5)

    def test_its_owner_is_fixed(self, world: World) -> None:
        rate = world.rate(1, "44")
        stranger = replace(rate, tenant_id=2, destination="x")
        assert _wrong_fields(world.rates.update, stranger, _ALL, "") == ["rate.tenant_id"]
        for owner in (0, 1):
            named = replace(rate, tenant_id=owner, destination=f"of {owner}")
            assert world.rates.update(named, _ALL, "").tenant_id == 1

    def test_its_result_is_checked(self, world: World) -> None:
        world.rate(1, "44", effective_from_ns=10)
        sent = Rate(id=1, effective_to_ns=10, billing_increment=0)
        wrong = _wrong_fields(world.rates.update, sent, frozenset({"effective_to_ns"}), "")
        assert wrong == ["rate.effective_to"]
        assert _wrong_fields(world.rates.update, Rate(), _ALL, "") == ["rate.id"]

    def test_an_unknown_rate(self, world: World) -> None:
        _failure(NotFound, Reason.RATE_NOT_FOUND, world.rates.update, Rate(id=9), _ALL, "")


class TestDelete:
    def test_it_is_deleted_and_its_versions_are_kept(self, world: World) -> None:
        rate = world.rate(1, "44")
        world.rates.delete(rate.id, rate.etag)
        for action in (world.rates.get, lambda rate_id: world.rates.delete(rate_id, "")):
            error = _failure(NotFound, Reason.RATE_NOT_FOUND, action, rate.id)
            assert error.metadata == {"rate_id": str(rate.id)}
        assert _versions(world) == [(1, 1, 2, 3, 600_0000)]
        assert len(world.decks.deck(1).deck) == 0

    def test_a_stale_etag_is_refused(self, world: World) -> None:
        rate = world.rate(1, "44")
        _failure(Aborted, Reason.ETAG_MISMATCH, world.rates.delete, rate.id, "v99")
        assert world.rates.get(rate.id) == rate

    def test_its_id_is_not_used_again(self, world: World) -> None:
        world.rates.delete(world.rate(1, "44").id, "")
        again = world.rate(1, "44")
        assert (again.id, again.etag) == (2, "v2")

    def test_wrong_fields_are_refused(self, world: World) -> None:
        for rate_id in (0, -1):
            assert _wrong_fields(world.rates.delete, rate_id, "") == ["id"]
            assert _wrong_fields(world.rates.get, rate_id) == ["id"]


def test_a_cdr_shows_the_rate_that_priced_it(world: World) -> None:
    first = world.rates.create(replace(_FULL, blocked=False))
    cdr = world.cdrs.create(call(1, "447911", 63, call_id="a"))
    changed = world.rates.update(replace(first, destination="new"), _ALL, "")
    world.rates.delete(changed.id, "")
    assert world.cdrs.get(cdr.id) == cdr
    assert cdr.rate == first
