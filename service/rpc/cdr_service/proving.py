"""The methods of CdrService that verify CDRs and the ledger."""

from __future__ import annotations

from collections.abc import Iterator

import grpc

from tollwire.service.record.ledger import Ledger
from tollwire.service.record.verification import Verification
from tollwire.service.rpc.conversion import ledger, verification
from tollwire.v1 import cdr_service_pb2 as pb
from tollwire.v1 import cdr_service_pb2_grpc

Context = grpc.ServicerContext


class CdrProving(cdr_service_pb2_grpc.CdrServiceServicer):
    def __init__(self, verification: Verification, ledger: Ledger) -> None:
        self._verification = verification
        self._ledger = ledger

    def VerifyCdrs(
        self, request: pb.VerifyCdrsRequest, context: Context
    ) -> Iterator[pb.VerifyCdrsResponse]:
        wanted = verification.verification_filter(request)
        return map(verification.progress, self._verification.verify(wanted))

    def GetLedgerRoot(self, request: pb.GetLedgerRootRequest, context: Context) -> pb.LedgerRoot:
        return ledger.ledger_root(self._ledger.root())

    def VerifyLedger(
        self, request: pb.VerifyLedgerRequest, context: Context
    ) -> Iterator[pb.VerifyLedgerResponse]:
        yield from map(
            ledger.ledger_progress, self._ledger.verify(request.root, request.public_keys)
        )
