"""Where a stack's phone apps send to."""

from __future__ import annotations

from pathlib import Path

import pytest

from ops.stack.addresses import choose_addresses
from ops.stack.phones import phone_of
from ops.stack.settings import FREE_PORTS, StackSettings
from ops.stack.stack import Stack
from ops.stack.tls_config import TlsConfig


@pytest.mark.parametrize(
    ("domain", "port"), [("fleet.example", ""), (None, ":{https}")], ids=["domain", "names"]
)
def test_phone__stack_with_tls__has_the_public_address_of_driver_api(
    tmp_path: Path, domain: str | None, port: str
) -> None:
    settings = StackSettings(**FREE_PORTS, doorstep_home=tmp_path / "stack", doorstep_tls=True)
    stack = Stack(settings)
    stack.paths.prepare()
    addresses = choose_addresses(settings, pytest.fail)
    addresses.save(stack.paths.addresses_file)
    TlsConfig(("track.example",), domain=domain).save(stack.paths.tls_file)
    assert addresses.https is not None

    phone = phone_of(stack, "anna", "phn_token")

    host = domain or "track.example"
    expected = f"https://{host}{port.format(https=addresses.https.port)}/driver-api"
    assert phone.base_url == expected
    assert (phone.broker.host, phone.broker.port) == (host, addresses.mqtt_tls[0].port)
