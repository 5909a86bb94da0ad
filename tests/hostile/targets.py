"""The server under test: a real one in its own processes, with some objects.

The objects that are needed at the end, a tenant with a rate for a RateCall, are spared: the clients
do not get their ids, and cannot guess them.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import psutil
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub

from tests.hostile.asking import CHANNEL_OPTIONS, NEVER, PATIENCE_SECONDS, Input
from tests.hostile.bearer import with_token
from tests.hostile.drawing import Known
from tests.integration.client import chunk, make_call, make_rate
from tests.integration.serving import ServerProcess, environment
from tollwire.service.rpc.transports.memory_guard import MEMORY_EXIT
from tollwire.v1 import access_service_pb2 as access_pb
from tollwire.v1 import rating_service_pb2 as rating_pb
from tollwire.v1 import tenant_service_pb2 as tenant_pb
from tollwire.v1 import types_pb2 as types
from tollwire.v1.access_service_pb2_grpc import AccessServiceStub
from tollwire.v1.cdr_service_pb2_grpc import CdrServiceStub
from tollwire.v1.rating_service_pb2_grpc import RatingServiceStub
from tollwire.v1.tenant_service_pb2_grpc import TenantServiceStub

ACCESS = ("open", "tokens")
SPARED_TENANT_ID = 7_318_555_201
SPARED_PREFIX = "4420"


@dataclass
class Target:
    """``tokens``: empty if the server demands none; else the first has all rights."""

    server: ServerProcess
    tokens: list[str] = field(default_factory=list)
    spared: defaultdict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    known: Known = field(default_factory=Known)
    workers: set[int] = field(default_factory=set)
    # Whether the server may close connections to defend itself; clients then retry.
    may_close: bool = False

    @property
    def address(self) -> str:
        return self.server.address

    @property
    def token(self) -> str:
        return self.tokens[0] if self.tokens else ""

    @contextmanager
    def channel(self) -> Iterator[grpc.Channel]:
        """One with all rights."""
        with grpc.insecure_channel(self.address, CHANNEL_OPTIONS) as channel:
            yield with_token(channel, self.token)

    def processes(self) -> list[psutil.Process]:
        parent = psutil.Process(self.server.process.pid)
        return [parent, *parent.children(recursive=True)]

    def spares(self, asked: Input) -> bool:
        """Whether it would take the tokens from the clients, or the rate from RateCall."""
        ids = self.spared.get(asked.method.name)
        if not ids:
            return False
        kind: Any = GetMessageClass(asked.method.input_type)
        for data in asked.messages:
            with contextlib.suppress(DecodeError):
                message = kind.FromString(data)
                if getattr(message, "rate", message).id in ids:
                    return True
        return False

    def rates(self) -> bool:
        """Whether RateCall has the same result as at the beginning."""
        with self.channel() as channel:
            return self.rates_on(channel)

    def rates_on(self, channel: grpc.Channel) -> bool:
        """The same, on an open connection."""
        call = make_call(SPARED_TENANT_ID, SPARED_PREFIX + "79460000")
        answer = RatingServiceStub(channel).RateCall(
            rating_pb.RateCallRequest(call=call), timeout=PATIENCE_SECONDS
        )
        return bool(answer.rated.cost == "0.0600")

    def serves_on(self, channel: grpc.Channel) -> bool:
        """Whether a probe finds the server healthy, on an open connection."""
        request = health_pb2.HealthCheckRequest()
        answer = HealthStub(channel).Check(request, timeout=PATIENCE_SECONDS)
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    def problems(self) -> list[str]:
        """The defects of the server after the run."""
        found = []
        if self.server.process.poll() is not None:
            return [f"the server has ended with {self.server.process.returncode}"]
        workers = {process.pid for process in self.processes()}
        if workers != self.workers and not (self.may_close and self._ended_workers()):
            found.append("workers have died")
        self.workers = workers
        log = self.server.log()
        found += [line for line in log.splitlines() if "defect" in line or "Traceback" in line][:10]
        try:
            if not self.rates():
                found.append("RateCall answers with another price")
        except grpc.RpcError as error:
            assert isinstance(error, grpc.Call)
            found.append(f"RateCall fails with {error.code().name}: {error.details()}")
        return found

    def _ended_workers(self) -> bool:
        """Whether workers have ended themselves because of their memory."""
        return f"ended with code {MEMORY_EXIT}" in self.server.log()


@contextmanager
def target(database_url: str, access: str, workers: int = 1, **env: str) -> Iterator[Target]:
    """A server with a scene in it; ``access`` is one of ACCESS."""
    with ServerProcess(database_url, workers=workers, TOLLWIRE_ACCESS=access, **env) as server:
        made = Target(server, may_close="native" in env.values())
        if access == "tokens":
            made.tokens.append(_first_token(database_url))
        with made.channel() as channel:
            _await_welcome(channel)
            _set_scene(made, channel)
        made.workers = {process.pid for process in made.processes()}
        yield made


def _first_token(database_url: str) -> str:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tollwire.service.cli.main",
            "tokens",
            "first",
            "--database",
            database_url,
        ],
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip().splitlines()[-1].strip()


def _await_welcome(channel: grpc.Channel) -> None:
    """Wait until the server has loaded the token."""
    until = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            AccessServiceStub(channel).ListTokens(access_pb.ListTokensRequest())
            return
        except grpc.RpcError as error:
            assert isinstance(error, grpc.Call)
            if error.code() in NEVER or time.monotonic() > until:
                raise
        time.sleep(0.05)


def _set_scene(made: Target, channel: grpc.Channel) -> None:
    tenants, rating = TenantServiceStub(channel), RatingServiceStub(channel)

    def tenant(**fields: object) -> types.Tenant:
        made_tenant = types.Tenant(name="Acme", **fields)
        return tenants.CreateTenant(tenant_pb.CreateTenantRequest(tenant=made_tenant))

    def rate(tenant_id: int, prefix: str) -> types.Rate:
        request = rating_pb.CreateRateRequest(rate=make_rate(prefix, tenant_id=tenant_id))
        return rating.CreateRate(request)

    made.known.spare([tenant(id=SPARED_TENANT_ID).id])
    # Ids continue after the highest; the clients' ids must not be next to the spared one.
    tenant(id=SPARED_TENANT_ID + 10**9)
    spared = rate(SPARED_TENANT_ID, SPARED_PREFIX)
    for method in ("UpdateRate", "DeleteRate"):
        made.spared[method].add(spared.id)
    for _ in range(2):
        one = tenant()
        made.known.learn(one)
        made.known.learn(rate(one.id, "44"))
        extension = types.Extension(tenant_id=one.id, number="101")
        request = tenant_pb.CreateExtensionRequest(extension=extension)
        made.known.learn(tenants.CreateExtension(request))
        calls = [make_call(one.id, call_id=f"call {number}") for number in range(3)]
        for answer in CdrServiceStub(channel).UploadCdrs(iter([chunk(calls)])):
            made.known.learn(answer)
        if made.tokens:
            _make_tokens(made, channel, one.id)


def _make_tokens(made: Target, channel: grpc.Channel, tenant_id: int) -> None:
    access = AccessServiceStub(channel)
    made.spared["RevokeToken"].update(
        t.id for t in access.ListTokens(access_pb.ListTokensRequest()).tokens
    )
    for role in access_pb.Role.values()[1:]:
        for scope in ({"every_tenant": True}, {"tenant_ids": [tenant_id]}):
            token = access_pb.Token(name="desk", role=role, **scope)
            answer = access.CreateToken(access_pb.CreateTokenRequest(token=token))
            made.tokens.append(answer.secret)
            made.spared["RevokeToken"].add(answer.token.id)
