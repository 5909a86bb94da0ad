"""Detects addresses that only this machine can reach.

Names are not resolved, because their addresses may change.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address


def is_loopback(host: str) -> bool:
    """Whether ``host``, a name or an address without brackets, is a loopback address."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        address: IPv4Address | IPv6Address = ip_address(host.partition("%")[0])
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address.is_loopback


def is_loopback_target(target: str) -> bool:
    """Whether ``target``, a server as gRPC names it, is on this machine: "127.0.0.1:50051",
    "dns:///localhost:50051", "unix:/run/tollwire.sock". False for unknown forms."""
    scheme, colon, rest = target.partition(":")
    if colon and scheme in ("unix", "unix-abstract"):
        return True
    if colon and scheme in ("dns", "ipv4", "ipv6"):
        # dns://SERVER/NAME names a DNS server too: not loopback.
        target = rest.removeprefix("///")
    addresses = target.split(",")
    return all(is_loopback(_host(address)) for address in addresses)


def _host(address: str) -> str:
    if address.startswith("["):
        return address[1:].partition("]")[0]
    return address if address.count(":") > 1 else address.partition(":")[0]
