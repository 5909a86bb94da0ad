"""The method of CdrService that summarizes usage."""

from __future__ import annotations

import grpc

from tollwire.service.reports.usage import Usage
from tollwire.service.rpc.conversion import usage
from tollwire.v1 import cdr_service_pb2 as pb
from tollwire.v1 import cdr_service_pb2_grpc

Context = grpc.ServicerContext


class CdrUsage(cdr_service_pb2_grpc.CdrServiceServicer):
    def __init__(self, usage: Usage) -> None:
        self._usage = usage

    def SummarizeUsage(
        self, request: pb.SummarizeUsageRequest, context: Context
    ) -> pb.SummarizeUsageResponse:
        return usage.usage(self._usage.summarize(usage.usage_query(request)))
