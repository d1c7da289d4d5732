"""Where drivers' phones reach a stack."""

from __future__ import annotations

from dataclasses import dataclass

from doorstep.settings import MqttBroker
from ops.stack.addresses import Addresses, reach
from ops.stack.paths import StackPaths
from ops.stack.tls_config import TlsConfig


@dataclass(frozen=True, slots=True)
class PhoneAddresses:
    """driver_api and the brokers, in their order, as phones reach them; and the page to join."""

    http_url: str
    brokers: tuple[MqttBroker, ...]
    join_url: str

    def environment(self) -> dict[str, str]:
        """Return the variables of driver_api."""
        brokers = ",".join(map(str, self.brokers))
        return {"PHONE_HTTP_URL": self.http_url, "PHONE_MQTT_URL": brokers}


def phone_addresses(paths: StackPaths, addresses: Addresses, public_url: str) -> PhoneAddresses:
    """Return them: with TLS behind Caddy, else the listeners themselves."""
    if addresses.https is None:
        url = addresses.driver_api_url
        listeners = map(reach, addresses.mqtt)
        brokers = tuple(MqttBroker(one.host, one.port, tls=False) for one in listeners)
        return PhoneAddresses(url, brokers, f"{url}/join")
    host = TlsConfig.load(paths.tls_file).public_host.strip("[]")
    brokers = tuple(MqttBroker(host, one.port, tls=True) for one in addresses.mqtt_tls)
    return PhoneAddresses(f"{public_url}/driver-api", brokers, f"{public_url}/join")
