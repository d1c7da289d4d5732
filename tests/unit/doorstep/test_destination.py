"""Which addresses are connected to. The resolver is a fake: names are its table's."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from doorstep.outbound.destination import (
    Address,
    DestinationRules,
    ForbiddenDestination,
    Resolver,
    find_destination,
)

PUBLIC = "93.184.215.14"
INNER = [
    *("10.0.0.5", "172.16.3.1", "192.168.1.1", "100.64.0.1", "169.254.169.254", "127.0.0.1"),
    *("0.0.0.0", "224.0.0.1", "240.0.0.1", "255.255.255.255", "192.0.2.1"),
    *("::1", "::", "fe80::1", "fc00::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.5"),
    *("64:ff9b::a00:5", "2002:a00:5::", "2001:0:a00:5::", "fd00:ec2::254"),
]


class FakeResolver(Resolver):
    """Answers from a table, and counts."""

    def __init__(self, *addresses: str) -> None:
        self.addresses: list[Address] = [ip_address(one) for one in addresses]
        self.asked = 0

    async def resolve(self, host: str, port: int) -> list[Address]:
        self.asked += 1
        return self.addresses


@pytest.mark.parametrize("address", INNER)
async def test_destination__name_of_an_inner_address__is_refused(address: str) -> None:
    with pytest.raises(ForbiddenDestination):
        await find_destination("https://a.example/x", FakeResolver(address), DestinationRules())


@pytest.mark.parametrize("address", INNER)
async def test_destination__inner_address_itself__is_refused(address: str) -> None:
    host = f"[{address}]" if ":" in address else address
    resolver = Resolver()
    with pytest.raises(ForbiddenDestination):
        await find_destination(f"https://{host}/x", resolver, DestinationRules())
    resolver.close()


@pytest.mark.parametrize("host", ["2130706433", "0x7f000001", "127.1", "localhost"])
async def test_destination__other_ways_to_write_loopback__are_refused(host: str) -> None:
    resolver = Resolver()
    with pytest.raises((ForbiddenDestination, OSError)):
        await find_destination(f"https://{host}/x", resolver, DestinationRules())
    resolver.close()


async def test_destination__one_of_several_addresses_is_inside__is_refused() -> None:
    resolver = FakeResolver(PUBLIC, "10.0.0.5")
    with pytest.raises(ForbiddenDestination):
        await find_destination("https://a.example/", resolver, DestinationRules())


async def test_destination__public_name__is_connected_to_by_the_checked_address() -> None:
    resolver = FakeResolver(PUBLIC, "2606:4700::6810:84e5")
    found = await find_destination("https://a.example:8443/x?y=1", resolver, DestinationRules())
    assert found.url == f"https://{PUBLIC}:8443/x?y=1"
    assert (found.host, found.host_header) == ("a.example", "a.example:8443")
    assert resolver.asked == 1  # so it cannot change between check and connection


@pytest.mark.parametrize(
    "url",
    [
        *("http://a.example/", "ftp://a.example/", "https://u:p@a.example/", "https:///x"),
        *("file:///etc/passwd", "https://a.example:99999/", "a.example", "gopher://a.example/"),
    ],
)
async def test_destination__not_plain_https__is_refused(url: str) -> None:
    with pytest.raises(ForbiddenDestination):
        await find_destination(url, FakeResolver(PUBLIC), DestinationRules())


async def test_destination__allowed_network__is_reached_by_https_only() -> None:
    rules = DestinationRules([ip_network("10.1.0.0/16")])
    resolver = FakeResolver("10.1.2.3")
    assert (await find_destination("https://a.example/", resolver, rules)).address
    for url, address in (("http://a.example/", "10.1.2.3"), ("https://a.example/", "10.2.0.1")):
        with pytest.raises(ForbiddenDestination):
            await find_destination(url, FakeResolver(address), rules)


async def test_destination__loopback_that_is_allowed__is_reached_by_http() -> None:
    rules = DestinationRules(allow_loopback=True)
    found = await find_destination("http://127.0.0.1:9/x", Resolver(), rules)
    assert found.url == "http://127.0.0.1:9/x"
    with pytest.raises(ForbiddenDestination):
        await find_destination("http://a.example/", FakeResolver("10.0.0.5"), rules)
