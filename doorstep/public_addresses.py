"""Which IP addresses are on the internet, for requests to hosts that a client has named."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

# An IPv6 address of these leads to the IPv4 address inside it: NAT64, 6to4, Teredo.
_TRANSLATED = [ip_network(one) for one in ("64:ff9b::/32", "2002::/16", "2001::/32")]


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether an address is on the internet: not private, local, multicast or translated."""
    address = getattr(address, "ipv4_mapped", None) or address
    is_translated = any(address in one for one in _TRANSLATED)
    return address.is_global and not address.is_multicast and not is_translated


def is_public_address(address: str) -> bool:
    """Whether an IP address, given as text, is on the internet."""
    return is_public(ip_address(address.partition("%")[0]))
