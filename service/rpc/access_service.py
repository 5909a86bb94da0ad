"""AccessService: tokens and the audit log."""

from __future__ import annotations

import time

import grpc

from tollwire.service.accounts.audit import AuditLog
from tollwire.service.accounts.tokens import Tokens
from tollwire.service.rpc.conversion import audit, fields, tokens
from tollwire.v1 import access_service_pb2 as pb
from tollwire.v1 import access_service_pb2_grpc

Context = grpc.ServicerContext


class AccessServicer(access_service_pb2_grpc.AccessServiceServicer):
    def __init__(self, tokens: Tokens, audit_log: AuditLog) -> None:
        self._tokens = tokens
        self._audit_log = audit_log

    def CreateToken(
        self, request: pb.CreateTokenRequest, context: Context
    ) -> pb.CreateTokenResponse:
        token, text = self._tokens.create(tokens.token_to_create(request, time.time_ns()))
        return pb.CreateTokenResponse(token=tokens.token(token), secret=text)

    def GetToken(self, request: pb.GetTokenRequest, context: Context) -> pb.Token:
        return tokens.token(self._tokens.get(fields.required_id(request.id, "id")))

    def ListTokens(self, request: pb.ListTokensRequest, context: Context) -> pb.ListTokensResponse:
        page = self._tokens.list(
            request.page_size, request.page_token, include_revoked=request.include_revoked
        )
        return pb.ListTokensResponse(
            tokens=map(tokens.token, page.items), next_page_token=page.next_page_token
        )

    def RevokeToken(self, request: pb.RevokeTokenRequest, context: Context) -> pb.Token:
        return tokens.token(self._tokens.revoke(fields.required_id(request.id, "id")))

    def ListAuditEntries(
        self, request: pb.ListAuditEntriesRequest, context: Context
    ) -> pb.ListAuditEntriesResponse:
        page = self._audit_log.list(
            audit.audit_filter(request), request.page_size, request.page_token
        )
        return pb.ListAuditEntriesResponse(
            entries=map(audit.audit_entry, page.items), next_page_token=page.next_page_token
        )
