"""``tollwire rate``: shows the cost of a call; stores nothing."""

from __future__ import annotations

import click
from google.protobuf.timestamp_pb2 import Timestamp

from tollwire.client import TollwireError
from tollwire.service.cli.connection import Client, connected
from tollwire.service.cli.explanation import show_explanation
from tollwire.service.cli.output import print_fields, print_json
from tollwire.service.cli.values import (
    DIRECTION,
    DISPOSITION,
    ID,
    INT64,
    RATING_STATUS,
    TIME,
    EnumParameter,
    enum_name,
)
from tollwire.v1.rating_service_pb2 import Explanation, RateCallRequest, RateCallResponse
from tollwire.v1.types_pb2 import (
    DIRECTION_OUTBOUND,
    DISPOSITION_ANSWERED,
    Call,
    Direction,
    Disposition,
    RatedCall,
)


@click.command("rate")
@click.argument("number")
@click.option("--tenant", "tenant_id", type=ID, required=True, help="The tenant that pays.")
@click.option("--seconds", type=INT64, required=True, help="The duration of the call.")
@click.option("--at", type=TIME, help="The time when the call started. Default: now.")
@click.option(
    "--direction",
    type=EnumParameter(DIRECTION),
    default=DIRECTION_OUTBOUND,
    help="The direction of the call. Default outbound.",
)
@click.option(
    "--disposition",
    type=EnumParameter(DISPOSITION),
    default=DISPOSITION_ANSWERED,
    help="The disposition of the call. Default answered.",
)
@click.option("--explain", is_flag=True, help="Show the rates that were considered, and each step.")
@connected
def rate(
    client: Client,
    number: str,
    tenant_id: int,
    seconds: int,
    at: Timestamp | None,
    direction: Direction.ValueType,
    disposition: Disposition.ValueType,
    explain: bool,
) -> None:
    """Show the cost of a call to NUMBER. Stores nothing."""
    call = Call(
        tenant_id=tenant_id,
        destination_number=number,
        direction=direction,
        disposition=disposition,
        duration_seconds=seconds,
        started_at=at,
    )
    request = RateCallRequest(call=call, explain=explain)
    try:
        answer = client.rate_call(request)
    except TollwireError as error:
        found = error.detail(Explanation)
        if found is not None and client.as_json:
            print_json(RateCallResponse(explanation=found))
        elif found is not None:
            show_explanation(found)
        raise
    if client.as_json:
        print_json(answer)
        return
    _show(answer.rated)
    if explain:
        show_explanation(answer.explanation)


def _show(rated: RatedCall) -> None:
    print_fields(
        [
            ("status", enum_name(RATING_STATUS, rated.status)),
            ("cost", rated.cost),
            ("billed", f"{rated.bill_seconds} s" if rated.HasField("bill_seconds") else ""),
            ("prefix", rated.matched_prefix),
            ("destination", rated.destination),
            ("cost per minute", rated.cost_per_minute),
            ("billing increment", f"{rated.billing_increment} s" if rated.rate_id else ""),
            ("rate", str(rated.rate_id or "")),
            ("rate revision", str(rated.rate_revision)),
        ]
    )
