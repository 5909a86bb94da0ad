"""Which addresses nobody but this machine can reach. Judged by what is written: no name is looked
up, since what it stands for may change.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address


def is_loopback(host: str) -> bool:
    """``host``: a name or an address, without brackets."""
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
    """``target``: a server as gRPC names it: "127.0.0.1:50051", "dns:///localhost:50051",
    "unix:/run/tollwire.sock". What is not understood is not loopback."""
    scheme, colon, rest = target.partition(":")
    if colon and scheme in ("unix", "unix-abstract"):
        return True
    if colon and scheme in ("dns", "ipv4", "ipv6"):
        # Between the slashes of dns://…/ may stand who is asked for the name.
        target = rest.removeprefix("///")
    addresses = target.split(",")
    return all(is_loopback(_host(address)) for address in addresses)


def _host(address: str) -> str:
    if address.startswith("["):
        return address[1:].partition("]")[0]
    return address if address.count(":") > 1 else address.partition(":")[0]
