"""The settings of webhooks."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated

from pydantic import BeforeValidator, Field, SecretStr
from pydantic_settings import NoDecode

from doorstep.settings import Bind, BindSetting, ListenerSettings


def _networks(value: object) -> object:
    if isinstance(value, str):
        return tuple(ip_network(one.strip()) for one in value.split(",") if one.strip())
    return value


Networks = Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode, BeforeValidator(_networks)]


class WebhooksSettings(ListenerSettings):
    """Environment variables of webhooks; each field's name in capitals."""

    database_url: SecretStr
    webhook_timeout_s: float = Field(default=10.0, gt=0, le=60)
    webhook_concurrency: int = Field(default=4, ge=1, le=16)
    webhook_first_pause_s: float = Field(default=5.0, gt=0, le=3600)
    webhook_retry_for_s: float = Field(default=86_400.0, gt=0, le=604_800)
    webhook_allowed_networks: Networks = ()
    webhook_allow_loopback: bool = False
    webhooks_bind: BindSetting = Bind("127.0.0.1", 8006)
