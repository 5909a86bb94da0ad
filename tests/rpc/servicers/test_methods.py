"""The servicers have and test every method of the protos."""

from __future__ import annotations

from tests.rpc.servicers import (
    test_access,
    test_cdr_correcting,
    test_cdr_proving,
    test_cdr_reading,
    test_cdr_recording,
    test_cdr_usage,
    test_rating,
    test_tenants,
)
from tests.rpc.servicers.fakes import SERVICES
from tollwire.service.rpc.access_service import AccessServicer
from tollwire.service.rpc.cdr_service import CdrServicer
from tollwire.service.rpc.rating_service import RatingServicer
from tollwire.service.rpc.tenant_service import TenantServicer

TABLES = (
    test_tenants.UNARY,
    test_rating.UNARY,
    test_access.UNARY,
    test_cdr_recording.UNARY,
    test_cdr_reading.UNARY,
    test_cdr_correcting.UNARY,
    test_cdr_usage.UNARY,
    test_cdr_proving.UNARY,
)


def test_every_method_is_tested() -> None:
    streams_and_bytes = {
        *("RatingService/RateCall", "RatingService/BatchRateCalls"),
        *("RatingService/StreamRateCalls", "RatingService/ImportRates"),
        *("RatingService/ExportRates", "CdrService/UploadCdrs", "CdrService/ExportCdrs"),
        "CdrService/CreateCdr",
        "CdrService/VerifyCdrs",
        "CdrService/WatchCdrs",
        "CdrService/VerifyLedger",
        "CdrService/ReverseCdrs",
    }
    everything = {
        f"{service.name}/{method.name}"
        for service in SERVICES.values()
        for method in service.methods
    }
    assert {row[0] for table in TABLES for row in table} | streams_and_bytes == everything


def test_no_method_is_inherited() -> None:
    for servicer, name in (
        (RatingServicer, "RatingService"),
        (CdrServicer, "CdrService"),
        (TenantServicer, "TenantService"),
        (AccessServicer, "AccessService"),
    ):
        # Of the classes below the generated one, in which every method is UNIMPLEMENTED.
        own = [each for each in servicer.__mro__ if not each.__module__.endswith("_pb2_grpc")]
        assert set(SERVICES[name].methods_by_name) <= set().union(*map(vars, own))
