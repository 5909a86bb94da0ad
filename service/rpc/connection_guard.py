"""Closes connections that take the places of others: limits by address, and for clients without a
token.

grpc and the native front accept connections themselves and show them to nobody, but they are open
files of this process. A thread looks at them: the address of each client, and since when it is
there. An RPC of an identified caller marks its connection as used. ``shutdown`` on a duplicate of
the file closes a connection for its owner as if the client had closed it; gRPC clients open a new
one when they need it, and lose no request.

Between two looks the transport accepts what comes, up to ``accepted_connections``: so a client with
a token can connect while another one opens connections as fast as it can.
"""

from __future__ import annotations

import heapq
import logging
import os
import socket
import stat
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from urllib.parse import unquote

from tollwire.service.domain.background_thread import BackgroundThread

# The time until the first RPC with a valid token, if tokens are demanded. Handshakes may take as
# long (connections.py).
UNUSED_SECONDS = 20.0
# Between two looks: while connections arrive, while there are some, and else.
BUSY_SECONDS = 0.02
QUIET_SECONDS = 0.25
IDLE_SECONDS = 1.0
# The part of all connections that may be unused, if tokens are demanded.
UNUSED_SHARE = 0.5
# The most connections above the limit that are accepted until the next look.
MAX_HEADROOM = 4_000
# Clients get whole networks of IPv6 addresses.
_IPV6_PREFIX = 64
# The open files of this process, by number.
_FILES = "/dev/fd"
_CLOSE_SECONDS = 2.0

_LOG = logging.getLogger("tollwire.rpc")

# An address in its shortest form, and a port.
Peer = tuple[str, int]


def accepted_connections(max_connections: int) -> int:
    """The number of connections that the transport may accept."""
    return max_connections + min(4 * max_connections, MAX_HEADROOM)


@dataclass(slots=True, eq=False)
class Connection:
    """One connection of a client. ``group``: the address that limits count."""

    file: int
    inode: int
    peer: Peer
    group: str
    since: float
    is_used: bool = False


def _nothing() -> bool:
    return False


class ConnectionGuard:
    """Guards the connections of one listening port. Thread-safe. ``start``, then ``close``."""

    def __init__(
        self, max_connections: int, max_of_address: int, *, ends_unused: bool = True
    ) -> None:
        """``ends_unused``: whether connections without an identified caller end after
        UNUSED_SECONDS; False if some RPCs do not show their connection."""
        self._max_connections = max_connections
        self._max_of_address = max_of_address
        self._ends_unused = ends_unused
        self._demands_tokens: Callable[[], bool] = _nothing
        self._port = 0
        # The peers of new identified RPCs; those of used connections as transports write them.
        self._identified: deque[str] = deque()
        self._used: frozenset[str] = frozenset()
        self._connections: dict[tuple[int, int], Connection] = {}
        # Other files of the process, by number, with their inodes.
        self._others: dict[int, int] = {}
        self._thread = BackgroundThread(
            "connection-guard", self._watch, close_seconds=_CLOSE_SECONDS
        )

    def identified(self, peer: str) -> None:
        """An RPC of an identified caller runs on the connection of ``peer``, as gRPC names it."""
        if peer not in self._used:
            self._identified.append(peer)

    def start(self, port: int, demands_tokens: Callable[[], bool]) -> None:
        self._port = port
        self._demands_tokens = demands_tokens
        self._thread.start()

    def close(self) -> None:
        self._thread.close()

    def _watch(self, stop: threading.Event) -> None:
        wait_seconds = IDLE_SECONDS
        while not stop.wait(wait_seconds):
            try:
                arrived = self.look()
            except Exception:  # the limits must stay
                _LOG.exception("connections were not checked")
                arrived = 0
            if arrived:
                wait_seconds = BUSY_SECONDS
            else:
                wait_seconds = QUIET_SECONDS if self._connections else IDLE_SECONDS

    def look(self) -> int:
        """Find and close the connections that are too many. Returns the number of new ones."""
        now = time.monotonic()
        arrived = self._update(now)
        self._mark_used()
        victims = choose(
            list(self._connections.values()),
            max_connections=self._max_connections,
            max_of_address=self._max_of_address,
            demands_tokens=self._demands_tokens(),
            unused_since=now - UNUSED_SECONDS if self._ends_unused else None,
        )
        for victim in victims:
            _shut(victim)
            self._connections.pop((victim.file, victim.inode), None)
            self._others[victim.file] = victim.inode
        if victims:
            groups = {victim.group for victim in victims}
            _LOG.warning(
                "connections were closed to protect others",
                extra={"fields": {"connections": len(victims), "addresses": len(groups)}},
            )
        return arrived

    def _update(self, now: float) -> int:
        files = [int(name) for name in os.listdir(_FILES)]  # noqa: PTH208  a path for each would take longer
        connections: dict[tuple[int, int], Connection] = {}
        others: dict[int, int] = {}
        arrived = 0
        for file in files:
            try:
                found = os.fstat(file)
            except OSError:  # closed meanwhile
                continue
            inode = found.st_ino
            key = (file, inode)
            known = self._connections.get(key)
            if known is None and self._others.get(file) != inode:
                if stat.S_ISSOCK(found.st_mode):
                    known = _connection(file, inode, self._port, now)
                arrived += known is not None
            if known is None:
                others[file] = inode
            else:
                connections[key] = known
        self._connections, self._others = connections, others
        return arrived

    def _mark_used(self) -> None:
        by_peer = {one.peer: one for one in self._connections.values()}
        used = set()
        while self._identified:
            text = self._identified.popleft()
            peer = peer_of(text)
            one = None if peer is None else by_peer.get(peer)
            if one is not None:
                one.is_used = True
                used.add(text)
        kept = {text for text in self._used if (peer := peer_of(text)) and peer in by_peer}
        self._used = frozenset(kept | used)


def choose(
    connections: Sequence[Connection],
    *,
    max_connections: int,
    max_of_address: int,
    demands_tokens: bool,
    unused_since: float | None,
) -> list[Connection]:
    """The connections to close. Unused ones first, and of these the oldest of the address with the
    most: a client that works uses its connection at once. Then the newest.

    ``unused_since``: if tokens are demanded, an unused connection that is older is closed."""
    victims: dict[Connection, None] = {}
    if demands_tokens and unused_since is not None:
        for one in connections:
            if not one.is_used and one.since < unused_since:
                victims[one] = None
    by_group: dict[str, list[Connection]] = defaultdict(list)
    for one in connections:
        if one not in victims:
            by_group[one.group].append(one)
    for members in by_group.values():
        if len(members) > max_of_address:
            for one in _in_order(members)[: len(members) - max_of_address]:
                victims[one] = None
    left = [one for one in connections if one not in victims]
    excess = len(left) - max_connections
    if demands_tokens:
        unused = sum(not one.is_used for one in left)
        excess = max(excess, unused - max(1, int(max_connections * UNUSED_SHARE)))
    if excess > 0:
        for one in _in_order(left)[:excess]:
            victims[one] = None
    return list(victims)


def _in_order(connections: Iterable[Connection]) -> list[Connection]:
    """The connections, those to close first at the beginning."""
    unused: dict[str, list[Connection]] = defaultdict(list)
    used = []
    for one in sorted(connections, key=lambda one: one.since, reverse=True):
        if one.is_used:
            used.append(one)
        else:
            unused[one.group].append(one)  # the oldest is last
    ordered = []
    most = [(-len(members), group) for group, members in unused.items()]
    heapq.heapify(most)
    while most:
        number, group = heapq.heappop(most)
        ordered.append(unused[group].pop())
        if number + 1:
            heapq.heappush(most, (number + 1, group))
    return ordered + used


def peer_of(text: str) -> Peer | None:
    """The peer that gRPC names "ipv4:192.0.2.1:5000" or "ipv6:%5B2001:db8::1%5D:5000"; None for
    other forms."""
    kind, _, rest = unquote(text).partition(":")
    host, _, port = rest.rpartition(":")
    if kind not in ("ipv4", "ipv6") or not port.isdecimal():
        return None
    try:
        return str(_address(host.strip("[]"))), int(port)
    except ValueError:
        return None


def _address(host: str) -> IPv4Address | IPv6Address:
    address = ip_address(host.partition("%")[0])
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _connection(file: int, inode: int, port: int, now: float) -> Connection | None:
    """The connection of a client to ``port``; None if the socket is something else."""
    try:
        with socket.socket(fileno=os.dup(file)) as line:
            if line.family not in (socket.AF_INET, socket.AF_INET6):
                return None
            if line.getsockname()[1] != port:
                return None
            host, peer_port = line.getpeername()[:2]
    except OSError:  # it listens, or is closed
        return None
    address = _address(host)
    group = str(address)
    if isinstance(address, IPv6Address):
        group = str(IPv6Network((address, _IPV6_PREFIX), strict=False))
    return Connection(file, inode, (str(address), peer_port), group, now)


def _shut(one: Connection) -> None:
    """Close the connection, unless its file is another one by now."""
    try:
        with socket.socket(fileno=os.dup(one.file)) as line:
            if os.fstat(line.fileno()).st_ino == one.inode:
                line.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # it is closed already
