"""Rates."""

from __future__ import annotations

import dataclasses
import re

from tollwire.service.domain.errors import invalid_field
from tollwire.service.domain.model import ImportOutcome, Interval, Rate
from tollwire.service.domain.money import format_price
from tollwire.service.rating.rate_checks import check_rate, check_terms
from tollwire.service.rpc.conversion import fields
from tollwire.service.rpc.conversion.fields import REQUIRED, Violations
from tollwire.v1 import rating_service_pb2 as pb
from tollwire.v1 import types_pb2

# Fields that an update cannot change: the server sets them, or they identify the rate.
_FIXED = {"id", "tenant_id", "etag", "created_at", "updated_at", "rate_revision"}
_IN_MODEL = {re.sub("_(e8|ns)$", "", field.name): field.name for field in dataclasses.fields(Rate)}
# Fields that an update may change: name on the wire -> name in the model.
_UPDATABLE = {
    field.name: _IN_MODEL[field.name]
    for field in types_pb2.Rate.DESCRIPTOR.fields
    if field.name not in _FIXED
}


def rate(rate: Rate) -> types_pb2.Rate:
    return types_pb2.Rate(
        id=rate.id,
        tenant_id=rate.tenant_id,
        prefix=rate.prefix,
        destination=rate.destination,
        cost_per_minute=format_price(rate.cost_per_minute_e8),
        billing_increment=rate.billing_increment,
        connect_fee=format_price(rate.connect_fee_e8),
        minimum_seconds=rate.minimum_seconds,
        intervals=[
            types_pb2.Interval(
                start_seconds=interval.start_seconds,
                cost_per_minute=format_price(interval.cost_per_minute_e8),
                billing_increment=interval.billing_increment,
            )
            for interval in rate.intervals
        ],
        effective_from=fields.timestamp(rate.effective_from_ns),
        effective_to=fields.timestamp(rate.effective_to_ns),
        blocked=rate.blocked,
        etag=rate.etag,
        created_at=fields.timestamp(rate.created_at_ns),
        updated_at=fields.timestamp(rate.updated_at_ns),
        rate_revision=rate.rate_revision,
    )


def rate_to_create(request: pb.CreateRateRequest) -> Rate:
    if not request.HasField("rate"):
        raise invalid_field("rate", REQUIRED)
    found = Violations()
    rate = read_rate(request.rate, found)
    found.merge(check_rate(rate))
    violations = Violations()
    violations.merge(found, "rate.")
    violations.raise_if_any()
    return rate


def rate_to_update(request: pb.UpdateRateRequest) -> tuple[Rate, frozenset[str]]:
    """The new values, and the fields to change, by the model's names. Without a mask the update
    replaces the rate, and all fields are checked here. With a mask the named fields must be
    readable, and the subject checks the resulting rate."""
    if not request.HasField("rate"):
        raise invalid_field("rate", REQUIRED)
    violations = Violations()
    changed = fields.changed(request.update_mask.paths, tuple(_UPDATABLE), violations)
    found = Violations()
    rate = read_rate(request.rate, found)
    if changed >= _UPDATABLE.keys():
        found.merge(check_terms(rate))
    violations.merge(found, "rate.")
    violations.drop_unchanged(changed, "rate.")
    fields.own_id(rate.id, "rate.id", violations)
    fields.etag(request.rate.etag, "rate.etag", violations)
    violations.raise_if_any()
    return rate, frozenset(_UPDATABLE[name] for name in changed)


def rate_to_delete(request: pb.DeleteRateRequest) -> tuple[int, str]:
    """The id and the etag of the rate."""
    violations = Violations()
    fields.own_id(request.id, "id", violations)
    fields.etag(request.etag, "etag", violations)
    violations.raise_if_any()
    return request.id, request.etag


def read_rate(message: types_pb2.Rate, violations: Violations) -> Rate:
    """The rate. Adds fields that cannot be read to ``violations``, with paths from the rate."""
    effective_from_ns = effective_to_ns = None
    if message.HasField("effective_from"):
        effective_from_ns = fields.time_ns(message.effective_from, "effective_from", violations)
    if message.HasField("effective_to"):
        effective_to_ns = fields.time_ns(message.effective_to, "effective_to", violations)
    return Rate(
        id=message.id,
        tenant_id=message.tenant_id,
        prefix=message.prefix,
        destination=message.destination,
        cost_per_minute_e8=fields.price_e8(message.cost_per_minute, "cost_per_minute", violations),
        billing_increment=message.billing_increment,
        connect_fee_e8=fields.price_e8(
            message.connect_fee, "connect_fee", violations, default_e8=0
        ),
        minimum_seconds=message.minimum_seconds,
        intervals=tuple(
            Interval(
                start_seconds=interval.start_seconds,
                cost_per_minute_e8=fields.price_e8(
                    interval.cost_per_minute, f"intervals[{index}].cost_per_minute", violations
                ),
                billing_increment=interval.billing_increment,
            )
            for index, interval in enumerate(message.intervals)
        ),
        effective_from_ns=effective_from_ns,
        effective_to_ns=effective_to_ns,
        blocked=message.blocked,
    )


def import_outcome(outcome: ImportOutcome) -> pb.ImportRatesResponse:
    return pb.ImportRatesResponse(
        created=outcome.created,
        updated=outcome.updated,
        deleted=outcome.deleted,
        unchanged=outcome.unchanged,
        rejected=outcome.rejected,
        errors=[
            pb.ImportError(
                index=error.index,
                field=error.field,
                message=error.message,
                first_index=error.first_index,
            )
            for error in outcome.errors
        ],
        rate_revision=outcome.rate_revision,
        closed=outcome.closed,
    )
