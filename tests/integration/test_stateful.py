"""Random histories of one tenant against a model of it: rates and rules that change after CDRs are
recorded.

After each step the server must rate with the rates in effect in the model, and every recorded CDR
must be unchanged.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.integration.client import NOON_NS, Client, chunk, make_call
from tests.integration.test_properties import calls, decks, place, rates, tenants
from tests.integration.wire_oracle import (
    assert_recomputes,
    expected_outcome,
    oracle_deck,
    oracle_result,
    outcome_of,
)
from tollwire.v1 import cdr_service_pb2 as cdr_pb
from tollwire.v1 import rating_service_pb2 as rating_pb
from tollwire.v1 import tenant_service_pb2 as tenant_pb
from tollwire.v1 import types_pb2 as types

MERGE, REPLACE = types.IMPORT_MODE_MERGE, types.IMPORT_MODE_REPLACE
Place = tuple[str | None, int | None]


class History(RuleBasedStateMachine):
    """``rates`` and ``tenant`` are the expected ones, ``cdrs`` the recorded ones."""

    client: Client

    @initialize(tenant=tenants(), deck=decks)
    def begin(self, tenant: types.Tenant, deck: list[types.Rate]) -> None:
        request = tenant_pb.CreateTenantRequest(tenant=tenant)
        self.tenant = self.client.tenants.CreateTenant(request)
        self.rates: dict[Place, types.Rate] = {}
        self.cdrs: dict[int, types.Cdr] = {}
        self.calls: list[types.Call] = []
        self.take(deck, MERGE)

    # Rates.

    def remember(self) -> None:
        """The ids that the server assigned."""
        self.rates = {place(rate): rate for rate in self.client.export_rates(self.tenant.id)}

    def take(self, deck: list[types.Rate], mode: int) -> None:
        named = {place(rate) for rate in deck}
        before = set(self.rates)
        # A random deck may begin later than the rates that it replaces.
        outcome = self.client.import_rates(self.tenant.id, deck, mode, allow_gap=mode == REPLACE)
        assert outcome.rejected == 0, outcome
        assert outcome.created == len(named - before)
        assert outcome.updated + outcome.unchanged == len(named & before)
        assert outcome.deleted == (len(before - named) if mode == REPLACE else 0)
        self.remember()
        expected = named | before if mode == MERGE else named
        assert set(self.rates) == expected

    @rule(deck=decks, mode=st.sampled_from([MERGE, REPLACE]))
    def import_deck(self, deck: list[types.Rate], mode: int) -> None:
        self.take(deck, mode)

    @rule(rate=rates())
    def create_rate(self, rate: types.Rate) -> None:
        if place(rate) not in self.rates:
            rate.tenant_id = self.tenant.id
            made = self.client.rating.CreateRate(rating_pb.CreateRateRequest(rate=rate))
            self.rates[place(made)] = made

    @precondition(lambda self: self.rates)
    @rule(rate=rates(), data=st.data())
    def update_rate(self, rate: types.Rate, data: st.DataObject) -> None:
        old = data.draw(st.sampled_from(list(self.rates)))
        if place(rate) == old or place(rate) not in self.rates:
            rate.id = self.rates.pop(old).id
            changed = self.client.update_rate(rate)
            self.rates[place(changed)] = changed

    @precondition(lambda self: self.rates)
    @rule(data=st.data())
    def delete_rate(self, data: st.DataObject) -> None:
        gone = self.rates.pop(data.draw(st.sampled_from(list(self.rates))))
        self.client.rating.DeleteRate(rating_pb.DeleteRateRequest(id=gone.id, etag=gone.etag))

    @rule(tenant=tenants())
    def change_rules(self, tenant: types.Tenant) -> None:
        tenant.id = self.tenant.id
        request = tenant_pb.UpdateTenantRequest(tenant=tenant)
        self.tenant = self.client.tenants.UpdateTenant(request)

    # CDRs.

    def expected(self, call: types.Call) -> Any:
        call.tenant_id = self.tenant.id
        return oracle_result(oracle_deck(self.tenant, list(self.rates.values())), call)

    @rule(given=st.lists(calls(), max_size=8))
    def upload(self, given: list[types.Call]) -> None:
        new = []
        for call in given:
            if not self.expected(call).refused:
                call.call_id = f"c{len(self.calls)}"
                self.calls.append(call)
                new.append(call)
        resent = self.calls[: 3 if new else 0]
        [answer] = self.client.upload(chunk([*new, *resent]))
        again = sum(call in new for call in resent)
        assert (answer.created, answer.conflicts, answer.rejected) == (len(new), 0, 0)
        assert answer.duplicates == len(resent), again
        found = {cdr.call_id: cdr for cdr in self.client.list_cdrs(tenant_id=self.tenant.id)}
        for call in new:
            cdr = found[call.call_id]
            assert outcome_of(cdr) == expected_outcome(self.expected(call))
            self.cdrs[cdr.id] = cdr

    @rule(call=calls())
    def record(self, call: types.Call) -> None:
        result = self.expected(call)
        if not result.refused:
            call.call_id = f"c{len(self.calls)}"
            self.calls.append(call)
            cdr = self.client.create_cdr(call)
            assert outcome_of(cdr) == expected_outcome(result)
            self.cdrs[cdr.id] = cdr

    @rule()
    def rate_unrated(self) -> None:
        unrated = types.RATING_STATUS_UNRATED
        waiting = [cdr for cdr in self.cdrs.values() if cdr.status == unrated]
        request = cdr_pb.RateUnratedRequest(tenant_id=self.tenant.id)
        answer = self.client.cdrs.RateUnrated(request)
        rated = corrected = 0
        for old in waiting:
            call = make_call(self.tenant.id, old.destination_number, old.duration_seconds)
            call.started_at.CopyFrom(old.started_at)
            result = self.expected(call)
            now = self.client.get_cdr(old.id)
            if result.status == "RATED":
                rated += 1
                assert outcome_of(now) == expected_outcome(result)
                self.cdrs[old.id] = now
                continue
            still = expected_outcome(result)
            wanted = types.Cdr.FromString(old.SerializeToString())
            if not result.refused and still != outcome_of(old):
                # Only the reason, and the revision of the rates and rules that determine it.
                corrected += 1
                wanted.unrated_reason = types.UnratedReason.Value(f"UNRATED_REASON_{still[1]}")
                [present] = self.client.batch([call])
                wanted.rate_revision = present.rate_revision
                wanted.tenant.CopyFrom(self.tenant)
                assert wanted.rate_revision > old.rate_revision
            assert now == wanted
            self.cdrs[old.id] = wanted
        assert (answer.examined, answer.rated) == (len(waiting), rated)
        assert answer.still_unrated == len(waiting) - rated
        assert answer.reason_corrected == corrected

    # Invariants.

    @invariant()
    def the_server_rates_as_the_model_says(self) -> None:
        prefixes = {rate.prefix for rate in self.rates.values()} | {"0", "44", "7"}
        probes = [
            make_call(self.tenant.id, f"+{prefix}1"[:33], 61, started_at=NOON_NS + offset)
            for prefix in prefixes
            for offset in (-1, 0, 2)
        ]
        deck = oracle_deck(self.tenant, list(self.rates.values()))
        ids = [rate.id for rate in self.rates.values()]
        for rated, call in zip(self.client.batch(probes), probes, strict=True):
            result = oracle_result(deck, call)
            assert outcome_of(rated) == expected_outcome(result)
            if result.rate_index is not None and not result.refused:
                assert rated.rate_id == ids[result.rate_index]

    def teardown(self) -> None:
        if not hasattr(self, "tenant"):
            return
        stored = self.client.list_cdrs(tenant_id=self.tenant.id, page_size=1000)
        assert {cdr.id: cdr for cdr in stored} == self.cdrs
        for cdr in stored:
            assert_recomputes(cdr)
        verified = self.client.verify(tenant_id=self.tenant.id)
        assert not verified.differences
        assert (verified.checked, verified.different) == (len(stored), 0)
        if not stored:
            request = tenant_pb.DeleteTenantRequest(id=self.tenant.id)
            self.client.tenants.DeleteTenant(request)


@pytest.mark.filterwarnings("ignore::hypothesis.errors.NonInteractiveExampleWarning")
def test_random_histories(client: Client) -> None:
    from hypothesis.stateful import run_state_machine_as_test

    machine = type("HistoryOfThisServer", (History,), {"client": client})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=6,
            stateful_step_count=20,
            deadline=None,
            database=None,
            derandomize=bool(os.environ.get("CI")),
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
