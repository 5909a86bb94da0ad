"""Detects which program listens on a port: a Tollwire server, or another program.

For ``doctor``, which checks an installation from outside. A server with TLS is recognised by its
certificate, which must equal that in the settings: with mutual TLS, a client without a certificate
cannot send a request. A server without TLS is recognised by its health service, a metrics port by
its page.
"""

from __future__ import annotations

import socket
import ssl
import urllib.request
from enum import Enum

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tollwire.service.settings.config import Settings
from tollwire.service.settings.parsing import Listen

_SECONDS = 3.0
# This service is SERVING even while the database is unavailable.
_SERVICE = "tollwire.v1.RatingService"
_METRIC = b"tollwire_build_info"
_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}


class PortStatus(Enum):
    """The program that answers on a port."""

    SERVING = "a Tollwire server that serves"
    NOT_SERVING = "a Tollwire server that does not serve"
    OTHER = "another program, or a server that does not answer"


def probe_grpc_port(settings: Settings) -> PortStatus:
    """The program that listens on the address of these settings."""
    address = _local(settings.listen)
    if settings.uses_tls:
        return _by_certificate(address, settings)
    with grpc.insecure_channel(str(address)) as channel:
        request = health_pb2.HealthCheckRequest(service=_SERVICE)
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=_SECONDS)
        except grpc.RpcError:
            return PortStatus.OTHER
    is_serving = answer.status == health_pb2.HealthCheckResponse.SERVING
    return PortStatus.SERVING if is_serving else PortStatus.NOT_SERVING


def probe_metrics_port(listen: Listen) -> PortStatus:
    """The program that listens on this metrics address."""
    url = f"http://{_local(listen)}/metrics"
    try:
        with urllib.request.urlopen(url, timeout=_SECONDS) as response:
            return PortStatus.SERVING if _METRIC in response.read() else PortStatus.OTHER
    except (OSError, ValueError):
        return PortStatus.OTHER


def _by_certificate(address: Listen, settings: Settings) -> PortStatus:
    assert settings.tls_cert_file is not None
    # Only a handshake: the bytes of the server's certificate are compared.
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    try:
        own = _first_certificate(settings.tls_cert_file.read_text("ascii"))
        with (
            socket.create_connection((address.host, address.port), _SECONDS) as connection,
            context.wrap_socket(connection) as secured,
        ):
            shown = secured.getpeercert(binary_form=True)
    except (OSError, ValueError):
        return PortStatus.OTHER
    return PortStatus.SERVING if shown == own else PortStatus.OTHER


def _first_certificate(pem: str) -> bytes:
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    start = pem.index(begin)
    return ssl.PEM_cert_to_DER_cert(pem[start : pem.index(end, start) + len(end)])


def _local(listen: Listen) -> Listen:
    return Listen(_ANY_ADDRESS.get(listen.host, listen.host), listen.port)
