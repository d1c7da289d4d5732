"""Which addresses may be connected to. A name is resolved once, and the checked address is used.

So neither a name of an inner server, nor one that changes between check and connection, nor a
redirect (which is never followed) reaches the inside of the network.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from urllib.parse import urlsplit

from doorstep.errors import DoorstepError
from doorstep.public_addresses import is_public

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

MAX_RESOLVING = 100  # threads: one per name, of 100 webhooks or of push services
DEFAULT_PORTS = {"http": 80, "https": 443}


class RequestFailed(DoorstepError):
    """A request to an address that others chose had no answer."""


class ForbiddenDestination(RequestFailed):
    """Nothing is sent to this address."""


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a request goes: the checked address, and the name for TLS and the Host header."""

    scheme: str
    host: str
    port: int
    address: Address
    target: str  # path and query

    @property
    def url(self) -> str:
        """The URL with the address in place of the name."""
        host = f"[{self.address}]" if self.address.version == 6 else str(self.address)
        return f"{self.scheme}://{host}:{self.port}{self.target}"

    @property
    def host_header(self) -> str:
        """The name that the URL had, with its port unless that is the default."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class DestinationRules:
    """What is allowed: public addresses by https, and exceptions of the operator."""

    allowed_networks: Sequence[Network] = ()
    allow_loopback: bool = False

    def check(self, scheme: str, address: Address) -> None:
        """Raise ForbiddenDestination unless `address` may be connected to by `scheme`."""
        address = getattr(address, "ipv4_mapped", None) or address
        is_own = address.is_loopback and self.allow_loopback
        if scheme == "http" and not is_own:
            raise ForbiddenDestination("http is for loopback only, if the operator allows it")
        if is_own or any(address in one for one in self.allowed_networks):
            return
        if not is_public(address):
            raise ForbiddenDestination(f"{address} is inside the network, or reserved")


class Resolver:
    """Resolves names in threads of its own: one at a time for each name."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(MAX_RESOLVING, thread_name_prefix="resolve")
        self._running: dict[tuple[str, int], asyncio.Future[list[Address]]] = {}

    async def resolve(self, host: str, port: int) -> list[Address]:
        """Return all addresses of a name. Raises OSError."""
        try:
            return [ip_address(host)]
        except ValueError:
            pass
        running = self._running.get((host, port))
        if running is None:
            loop = asyncio.get_running_loop()
            running = loop.run_in_executor(self._threads, _look_up, host, port)
            self._running[host, port] = running
            running.add_done_callback(lambda _: self._running.pop((host, port), None))
        return await asyncio.shield(running)

    def close(self) -> None:
        """Start no more threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _look_up(host: str, port: int) -> list[Address]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(ip_address(str(one[4][0]).partition("%")[0]) for one in found))


async def find_destination(url: str, resolver: Resolver, rules: DestinationRules) -> Destination:
    """Resolve a URL's name and check all its addresses. Raises ForbiddenDestination, OSError."""
    parts = urlsplit(url)
    host = parts.hostname
    if parts.scheme not in DEFAULT_PORTS or not host or parts.username or parts.password:
        raise ForbiddenDestination("not an https URL without a user")
    try:
        port = parts.port or DEFAULT_PORTS[parts.scheme]
    except ValueError as exc:
        raise ForbiddenDestination("the port is not one") from exc
    addresses = await resolver.resolve(host, port)
    for address in addresses:
        rules.check(parts.scheme, address)
    if not addresses:
        raise ForbiddenDestination(f"{host} has no address")
    target = f"{parts.path or '/'}{f'?{parts.query}' if parts.query else ''}"
    return Destination(parts.scheme, host, port, addresses[0], target)
