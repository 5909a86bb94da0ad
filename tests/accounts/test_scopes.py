"""Requests of callers with a scope: they see their own tenants, and nothing that reveals another.

Each request is made three times: about an object of the caller's, about another tenant's, and about
one that never existed. The responses to the last two must be equal, except for the id in the
request.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import pytest

from tests.world import World, call, calls
from tollwire.service.domain.errors import InvalidInput, NotFound, Reason, TollwireError
from tollwire.service.domain.model import (
    Cdr,
    CdrFilter,
    Extension,
    ImportMode,
    Page,
    Rate,
    ReversalRequest,
    Tenant,
    UsageDimension,
    UsageQuery,
)
from tollwire.service.domain.record_model import ReversalFilter, VerificationFilter
from tollwire.service.domain.request import Caller, Request, Role, Scope
from tollwire.service.domain.thread_context import handling
from tollwire.service.rating.calls import Calls
from tollwire.service.record.verification import Verification
from tollwire.service.storage.engine import Database

ABSENT = 900_000_001
WHY = ReversalRequest("a test", "anna")


@dataclass(frozen=True)
class Things:
    """The objects of a tenant; of the absent tenant, ids that do not exist."""

    tenant_id: int
    extension_id: int
    rate_id: int
    cdr_id: int
    upload_id: int


NOTHING = Things(ABSENT, ABSENT, ABSENT, ABSENT, ABSENT)


@dataclass(frozen=True)
class Scene:
    """Two tenants with equal objects, and an upload of both."""

    world: World
    calls: Calls
    verification: Verification
    own: Things
    other: Things
    shared_upload_id: int


def seen_by(*tenant_ids: int) -> AbstractContextManager[None]:
    """The block runs as a caller with these tenants in its scope."""
    scope = Scope(frozenset(tenant_ids))
    return handling(Request(caller=Caller("somebody", Role.ADMIN, scope)))


def _things(world: World, number: int) -> Things:
    # Ids that are the ids of nothing else: the test searches texts for them.
    tenant_id = world.tenant(id=7_000_000 + number)
    extension_id = 8_000_000 + number
    world.tenants.create_extension(Extension(id=extension_id, tenant_id=tenant_id, number="101"))
    rate = world.rate(tenant_id, "44", 200, 6)
    with seen_by(tenant_id):
        uploaded = world.commit(0, 0, [*calls(tenant_id, 0, 3), call(tenant_id, "999")])
        world.commit(uploaded.upload_id, 4, [call(ABSENT)])
        [_, *_, cdr] = world.cdrs.list(CdrFilter(), 0, "").items
    return Things(tenant_id, extension_id, rate.id, cdr.id, uploaded.upload_id)


@pytest.fixture
def scene(database: Database) -> Scene:
    world = World.over(database)
    own, other = _things(world, 1), _things(world, 2)
    both = [call(one.tenant_id, "4420", call_id="both") for one in (own, other)]
    shared = world.commit(0, 0, both).upload_id
    return Scene(world, Calls(world.decks), Verification(database), own, other, shared)


def told(action: Callable[[], Any], *ids: int) -> str:
    """The result or the error, with ``ids`` replaced."""
    try:
        answer = action()
        if isinstance(answer, Iterator):
            answer = list(answer)
        text = repr(answer)
    except TollwireError as error:
        text = repr((type(error), error.reason, error.message, error.metadata, error.violations))
    for one in ids:
        text = re.sub(rf"\b{one}\b", "ID", text)
    return text


# Requests about one object: for an absent one all fail, with this reason.
FAILING: dict[str, tuple[Reason, Callable[[Scene, Things], Any]]] = {
    "rate": (Reason.TENANT_NOT_FOUND, lambda p, t: p.calls.rate(call(t.tenant_id))),
    "rate at a revision": (
        Reason.TENANT_NOT_FOUND,
        lambda p, t: p.calls.rate(call(t.tenant_id), 10**6),
    ),
    "explain": (Reason.TENANT_NOT_FOUND, lambda p, t: p.calls.explain(call(t.tenant_id))),
    "create a rate": (
        Reason.TENANT_NOT_FOUND,
        lambda p, t: p.world.rate(t.tenant_id, "44", 200, 6),
    ),
    "get a rate": (Reason.RATE_NOT_FOUND, lambda p, t: p.world.rates.get(t.rate_id)),
    "update a rate": (
        Reason.RATE_NOT_FOUND,
        lambda p, t: p.world.rates.update(
            Rate(id=t.rate_id, tenant_id=p.own.tenant_id), frozenset({"blocked"}), "stale"
        ),
    ),
    "delete a rate": (Reason.RATE_NOT_FOUND, lambda p, t: p.world.rates.delete(t.rate_id, "stale")),
    "import rates": (
        Reason.TENANT_NOT_FOUND,
        lambda p, t: p.world.import_deck(t.tenant_id, ImportMode.REPLACE, True, []),
    ),
    "export rates": (Reason.TENANT_NOT_FOUND, lambda p, t: p.world.rates.export(t.tenant_id)),
    "create a CDR": (
        Reason.TENANT_NOT_FOUND,
        lambda p, t: p.world.cdrs.create(call(t.tenant_id, call_id="c0")),
    ),
    "create a CDR of an extension": (
        Reason.EXTENSION_NOT_FOUND,
        lambda p, t: p.world.cdrs.create(call(p.own.tenant_id, extension_id=t.extension_id)),
    ),
    "get a CDR": (Reason.CDR_NOT_FOUND, lambda p, t: p.world.cdrs.get(t.cdr_id)),
    "reverse a CDR": (
        Reason.CDR_NOT_FOUND,
        lambda p, t: p.world.reversals.reverse_cdr(t.cdr_id, WHY),
    ),
    "get an upload": (Reason.UPLOAD_NOT_FOUND, lambda p, t: p.world.uploads.get(t.upload_id)),
    "list failures": (
        Reason.UPLOAD_NOT_FOUND,
        lambda p, t: p.world.uploads.list_failures(t.upload_id, "", 0, ""),
    ),
    "go on with an upload": (
        Reason.UPLOAD_NOT_FOUND,
        lambda p, t: p.world.commit(t.upload_id, 77, [call(p.own.tenant_id)]),
    ),
    "reverse an upload": (
        Reason.UPLOAD_NOT_FOUND,
        lambda p, t: p.world.reversals.reverse_upload(t.upload_id, WHY),
    ),
    "rate unrated CDRs": (
        Reason.TENANT_NOT_FOUND,
        lambda p, t: p.world.cdrs.rate_unrated(t.tenant_id, None, None),
    ),
    "verify a tenant": (
        Reason.TENANT_NOT_FOUND,
        lambda p, t: p.verification.verify(VerificationFilter(tenant_id=t.tenant_id)),
    ),
    "verify an upload": (
        Reason.UPLOAD_NOT_FOUND,
        lambda p, t: p.verification.verify(VerificationFilter(upload_id=t.upload_id)),
    ),
    "get a tenant": (Reason.TENANT_NOT_FOUND, lambda p, t: p.world.tenants.get(t.tenant_id)),
    "update a tenant": (
        Reason.TENANT_NOT_FOUND,
        lambda p, t: p.world.tenants.update(
            Tenant(id=t.tenant_id, currency="EUR"), frozenset({"currency"})
        ),
    ),
    "delete a tenant": (Reason.TENANT_NOT_FOUND, lambda p, t: p.world.tenants.delete(t.tenant_id)),
    "create an extension": (
        Reason.TENANT_NOT_FOUND,
        lambda p, t: p.world.extension(t.tenant_id),
    ),
    "get an extension": (
        Reason.EXTENSION_NOT_FOUND,
        lambda p, t: p.world.tenants.get_extension(t.extension_id),
    ),
    "update an extension": (
        Reason.EXTENSION_NOT_FOUND,
        lambda p, t: p.world.tenants.update_extension(
            Extension(id=t.extension_id, tenant_id=p.own.tenant_id), frozenset({"name"})
        ),
    ),
    "delete an extension": (
        Reason.EXTENSION_NOT_FOUND,
        lambda p, t: p.world.tenants.delete_extension(t.extension_id),
    ),
}
# Requests with a filter: for an absent object nothing matches.
EMPTY: dict[str, Callable[[Scene, Things], Any]] = {
    "a batch": lambda p, t: p.calls.rate_batch([call(t.tenant_id), call(t.tenant_id, "1")]),
    "the deck of a batch": lambda p, t: p.calls.deck(t.tenant_id, 0, 0.0),
    "the deck of a call": lambda p, t: p.calls.deck_in_memory(t.tenant_id),
    "rates": lambda p, t: p.world.rates.list(t.tenant_id, "", 1, ""),
    "CDRs": lambda p, t: p.world.cdrs.list(CdrFilter(tenant_id=t.tenant_id), 1, ""),
    "CDRs of an extension": lambda p, t: p.world.cdrs.list(
        CdrFilter(extension_id=t.extension_id), 1, ""
    ),
    "an export": lambda p, t: p.world.cdrs.export(CdrFilter(tenant_id=t.tenant_id)),
    "usage": lambda p, t: p.world.usage.summarize(UsageQuery(tenant_id=t.tenant_id)),
    "usage by day": lambda p, t: p.world.usage.summarize(
        UsageQuery(tenant_id=t.tenant_id, group_by=(UsageDimension.DAY,), time_zone="Europe/Berlin")
    ),
    "reversals": lambda p, t: p.world.reversals.list(ReversalFilter(tenant_id=t.tenant_id), 1, ""),
    "reversals of an upload": lambda p, t: p.world.reversals.list(
        ReversalFilter(upload_id=t.upload_id), 1, ""
    ),
    "extensions": lambda p, t: p.world.tenants.list_extensions(t.tenant_id, 1, ""),
}


def everything(scene: Scene) -> list[Any]:
    """The content of every table that a subject writes."""
    tables = ("tenants", "extensions", "rate_versions", "cdrs", "cdr_reversals", "uploads")
    with scene.world.database.read() as connection:
        return [
            sorted(map(tuple, connection.exec_driver_sql(f"SELECT * FROM {table}")), key=repr)
            for table in (*tables, "upload_failures", "decks")
        ]


def test_another_tenants_object_does_not_exist(scene: Scene) -> None:
    before = everything(scene)
    with seen_by(scene.own.tenant_id):
        for name, (reason, ask) in FAILING.items():
            of_other = told(lambda ask=ask: ask(scene, scene.other), *_ids(scene.other))
            of_nobody = told(lambda ask=ask: ask(scene, NOTHING), ABSENT)
            assert of_other == of_nobody, name
            assert f"{reason!r}" in of_other, name
    assert everything(scene) == before


def test_filters_match_nothing_of_another_tenant(scene: Scene) -> None:
    with seen_by(scene.own.tenant_id):
        for name, ask in EMPTY.items():
            of_other = told(lambda ask=ask: ask(scene, scene.other), *_ids(scene.other))
            assert of_other == told(lambda ask=ask: ask(scene, NOTHING), ABSENT), name


def test_the_callers_own_objects_are_found(scene: Scene) -> None:
    # Otherwise the tests above would pass with a service that finds nothing.
    with seen_by(scene.own.tenant_id):
        for name, ask in EMPTY.items():
            if "reversals" in name or name == "CDRs of an extension":
                continue
            of_own = told(lambda ask=ask: ask(scene, scene.own), *_ids(scene.own))
            assert of_own != told(lambda ask=ask: ask(scene, NOTHING), ABSENT), name
        for name, (reason, ask) in FAILING.items():
            own = told(lambda ask=ask: ask(scene, scene.own), *_ids(scene.own))
            assert f"{reason!r}" not in own, name
        for name in ("reversals", "reversals of an upload"):
            assert EMPTY[name](scene, scene.own).items, name


def _ids(things: Things) -> list[int]:
    return [
        things.tenant_id,
        things.extension_id,
        things.rate_id,
        things.cdr_id,
        things.upload_id,
    ]


def walk(list_page: Callable[[str], Page[Any]]) -> list[Any]:
    """All pages."""
    found: list[Any] = []
    token = ""
    while True:
        page = list_page(token)
        found += page.items
        token = page.next_page_token
        if not token:
            return found


LISTS: dict[str, Callable[[World, str], Page[Any]]] = {
    "tenants": lambda w, token: w.tenants.list(1, token),
    "extensions": lambda w, token: w.tenants.list_extensions(0, 1, token),
    "rates": lambda w, token: w.rates.list(0, "", 1, token),
    "CDRs": lambda w, token: w.cdrs.list(CdrFilter(), 1, token),
    "uploads": lambda w, token: w.uploads.list(1, token),
    "reversals": lambda w, token: w.reversals.list(ReversalFilter(), 1, token),
}


def _owner(item: Any) -> object:
    if isinstance(item, Cdr):
        return item.call.tenant_id
    return item.id if isinstance(item, Tenant) else item.tenant_id


def test_tenant_0_means_all_tenants_in_the_scope(scene: Scene) -> None:
    world, own, other = scene.world, scene.own, scene.other
    third = _things(world, 3)
    for one in (own, other, third):
        world.reversals.reverse_cdr(one.cdr_id, WHY)
    tenants = [own.tenant_id, other.tenant_id, third.tenant_id]
    for name, list_page in LISTS.items():
        everywhere = walk(lambda token, ask=list_page: ask(world, token))
        for scope in ([], tenants[:1], tenants[::2], tenants, [*range(1, 99), *tenants[1:]]):
            with seen_by(*scope):
                found = walk(lambda token, ask=list_page: ask(world, token))
            if name == "uploads":
                by_scope = zip(tenants, (one.upload_id for one in (own, other, third)), strict=True)
                wanted = [upload_id for tenant_id, upload_id in by_scope if tenant_id in scope]
                assert [one.id for one in found] == wanted[::-1], scope
            else:
                assert found == [one for one in everywhere if _owner(one) in scope], (name, scope)
                assert bool(found) is bool(scope), (name, scope)


def test_sums_and_exports_have_all_tenants_in_the_scope(scene: Scene) -> None:
    world, own, other = scene.world, scene.own, scene.other
    for one in (own, other):
        world.reversals.reverse_cdr(one.cdr_id, WHY)
    by_tenant = UsageQuery(group_by=(UsageDimension.TENANT,))
    rows = {int(row.keys[0]): row for row in world.usage.summarize(by_tenant)}
    for scope in ([own.tenant_id], [own.tenant_id, other.tenant_id]):
        with seen_by(*scope):
            [total] = world.usage.summarize(UsageQuery())
            assert total.billed.calls == 5 * len(scope)
            assert total.corrected.calls == 4 * len(scope)
            found = world.usage.summarize(by_tenant)
            assert [int(row.keys[0]) for row in found] == scope
            assert all(row == rows[int(row.keys[0])] for row in found)
            by_day = UsageQuery(group_by=(UsageDimension.DAY,), time_zone="Europe/Berlin")
            assert [row.billed.calls for row in world.usage.summarize(by_day)] == [5 * len(scope)]
            exported = [cdr for part in world.cdrs.export(CdrFilter()) for cdr in part]
            assert sorted({cdr.call.tenant_id for cdr in exported}) == scope
            *_, last = scene.verification.verify(VerificationFilter())
            assert (last.checked, last.different) == (5 * len(scope), 0)


def test_only_calls_in_the_scope_are_priced(scene: Scene) -> None:
    world, own, other = scene.world, scene.own, scene.other
    for one in (own, other):
        world.rate(one.tenant_id, "9", 100, 1)
    for scope in ([], [ABSENT], [own.tenant_id, ABSENT]):
        with seen_by(*scope):
            outcome = world.cdrs.rate_unrated(0, None, None)
        assert outcome.rated == (own.tenant_id in scope)
    with seen_by(ABSENT, other.tenant_id):
        assert world.cdrs.rate_unrated(0, None, None).rated == 1
    assert world.cdrs.rate_unrated(0, None, None).examined == 0


def test_a_batch_reveals_no_other_tenant(scene: Scene) -> None:
    own_id = scene.own.tenant_id

    def batch(of: Things) -> list[Any]:
        return [
            call(own_id, call_id=f"own {of.tenant_id}"),
            call(of.tenant_id, call_id="c0"),
            call(of.tenant_id, "999", extension_id=of.extension_id, call_id="c1"),
            call(own_id, extension_id=of.extension_id, call_id="x"),
        ]

    def uploaded(of: Things) -> Any:
        result = scene.world.commit(0, 0, batch(of))
        failed = scene.world.uploads.list_failures(result.upload_id, "", 0, "").items
        assert (result.created, result.rejected, len(failed)) == (1, 3, 3)
        return [(one.failure, one.content) for one in failed]

    with seen_by(own_id):
        for ask in (uploaded, lambda of: scene.calls.rate_batch(batch(of))):
            answers = [
                told(lambda ask=ask, of=of: ask(of), of.tenant_id, of.extension_id)
                for of in (scene.other, NOTHING)
            ]
            assert answers[0] == answers[1]


def test_an_upload_belongs_to_the_scope_of_its_start(scene: Scene) -> None:
    world, own, other = scene.world, scene.own, scene.other
    both = (own.tenant_id, other.tenant_id)
    with seen_by(*both):
        upload_id = world.commit(0, 0, [call(one, call_id="of both") for one in both]).upload_id
    with seen_by(*both[::-1]):  # another caller with the same scope
        again = world.commit(upload_id, 2, [call(one, call_id="again") for one in both])
        assert (again.created, again.committed_offset) == (2, 4)
    for narrow in ([], both[:1], [both[1], ABSENT]):
        with seen_by(*narrow), pytest.raises(NotFound, match=f"no upload {upload_id}"):
            world.commit(upload_id, 4, [call(narrow[0] if narrow else 1)])
    for too_narrow in (both[:1], both):
        with seen_by(*too_narrow), pytest.raises(NotFound):
            world.uploads.get(scene.shared_upload_id)


def test_an_upload_takes_no_calls_outside_its_scope(scene: Scene) -> None:
    world, own, other = scene.world, scene.own, scene.other
    upload = world.uploads.get(own.upload_id)
    sent = [call(own.tenant_id, call_id="late"), call(other.tenant_id, call_id="strange")]
    late = world.commit(upload.id, upload.committed_offset, sent)
    assert (late.created, late.rejected) == (1, 1)
    assert late.failures[0].reason == Reason.TENANT_NOT_FOUND
    with seen_by(own.tenant_id):
        assert world.uploads.get(upload.id).committed_offset == upload.committed_offset + 2
        taken_back = world.reversals.reverse_upload(upload.id, WHY)
    assert taken_back.cdrs == upload.created + 1


def test_a_page_token_of_another_scope_is_refused(scene: Scene) -> None:
    world, own, other = scene.world, scene.own, scene.other
    for one in (own, other):
        world.reversals.reverse_upload(one.upload_id, WHY)
    for name, list_page in LISTS.items():
        tokens = ["bogus", list_page(world, "").next_page_token]
        for scope in ((own.tenant_id, other.tenant_id), (own.tenant_id, ABSENT)):
            with seen_by(*scope):
                tokens.append(list_page(world, "").next_page_token)
        assert all(tokens[:3]), name
        with seen_by(own.tenant_id):
            answers = {told(lambda t=t, ask=list_page: ask(world, t)) for t in tokens if t}
        assert len(answers) == 1, (name, answers)
        assert "page_token" in answers.pop(), name


def test_a_caller_with_a_scope_cannot_find_out_taken_ids(scene: Scene) -> None:
    world, own, other = scene.world, scene.own, scene.other
    for extension_id in (other.extension_id, own.extension_id, ABSENT):
        chosen = Extension(id=extension_id, tenant_id=own.tenant_id, number="7")
        with seen_by(own.tenant_id), pytest.raises(InvalidInput, match=r"extension\.id"):
            world.tenants.create_extension(chosen)
        with seen_by(own.tenant_id):
            assert world.extension(own.tenant_id) > 0
    assert world.tenants.create_extension(chosen).id == ABSENT


def test_a_request_does_not_wait_for_another_tenants_lock(scene: Scene) -> None:
    """A wait for a lock would reveal that the object exists."""
    if scene.world.database.engine.dialect.name == "sqlite":
        return  # SQLite has one writer at a time
    waiting = (
        *("update a rate", "create a rate", "import rates", "reverse a CDR", "create a CDR"),
        "create a CDR of an extension",
        *("go on with an upload", "reverse an upload", "update a tenant", "delete a tenant"),
        *("create an extension", "update an extension", "delete an extension"),
    )
    other = scene.other
    with scene.world.database.write() as connection:
        for table, column, row_id in (
            ("tenants", "id", other.tenant_id),
            ("decks", "tenant_id", other.tenant_id),
            ("extensions", "id", other.extension_id),
            ("cdrs", "id", other.cdr_id),
            ("uploads", "id", other.upload_id),
        ):
            connection.exec_driver_sql(
                f"SELECT 1 FROM {table} WHERE {column} = {row_id} FOR UPDATE"
            )
        with seen_by(scene.own.tenant_id):
            for name in waiting:
                reason, ask = FAILING[name]
                with pytest.raises(NotFound) as missing:
                    ask(scene, other)
                assert missing.value.reason == reason
