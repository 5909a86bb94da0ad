"""``tollwire health``: whether a server, or one of its services, is SERVING.

For people, and for supervisors that check health with a program (a container's health check, an
exec probe). It uses grpc.health.v1 and needs no token.
"""

from __future__ import annotations

import click
from grpc_health.v1.health_pb2 import (
    HealthCheckRequest,
    HealthCheckResponse,
    HealthListResponse,
)

from tollwire.service.cli.connection import Client, connected
from tollwire.service.cli.failures import UNREACHABLE, Failure
from tollwire.service.cli.output import print_json, print_table

_WHOLE = "(the server)"


@click.command()
@click.argument("service", required=False, default="")
@connected
def health(client: Client, service: str) -> None:
    """Show whether the server, or its SERVICE (tollwire.v1.RatingService), accepts requests.

    Exits with 3 if it does not.
    """
    if service:
        answer = client.check_health(HealthCheckRequest(service=service))
        statuses = {service: answer}
        document: HealthCheckResponse | HealthListResponse = answer
    else:
        document = client.list_health()
        statuses = dict(document.statuses)
    if client.as_json:
        print_json(document)
    else:
        print_table(
            ("service", "status"),
            ((name or _WHOLE, _status(statuses[name])) for name in sorted(statuses)),
        )
    if statuses[service].status != HealthCheckResponse.SERVING:
        raise Failure(f"{service or 'the server'} is not serving", UNREACHABLE)


def _status(answer: HealthCheckResponse) -> str:
    return str(HealthCheckResponse.ServingStatus.Name(answer.status)).lower().replace("_", " ")
