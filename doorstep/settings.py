"""Settings from environment variables, one frozen class per service.

A service subclasses `ServiceSettings`, builds it once in `main()` with `load()` and passes it
down. An invalid value stops the service at start with one line that names the variable.
"""

from __future__ import annotations

import ipaddress
import os
import sys
from dataclasses import dataclass
from typing import Annotated, NoReturn, Self
from urllib.parse import urlsplit

from pydantic import BeforeValidator, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from doorstep.errors import SettingsError

EX_CONFIG = 78  # sysexits.h: configuration error, which a supervisor can distinguish from a crash


@dataclass(frozen=True, slots=True)
class Bind:
    """An address to listen on."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Bind:
        """Parse `host:port` or `[::1]:port`. Raises ValueError."""
        host, separator, port = text.rpartition(":")
        if not separator or not port.isdecimal() or int(port) > 65535:
            raise ValueError(f"{text!r} is not host:port, for example 127.0.0.1:8000")
        return cls(host.strip("[]") or "127.0.0.1", int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class MqttBroker:
    """One broker of MQTT_URL. A driver belongs to broker crc32(driver_id) mod their number."""

    host: str
    port: int
    tls: bool

    @classmethod
    def parse(cls, url: str) -> MqttBroker:
        """Parse `mqtt://host:port` or `mqtts://host:port`. Raises ValueError."""
        parts = urlsplit(url.strip())
        if parts.scheme not in ("mqtt", "mqtts") or not parts.hostname:
            raise ValueError(f"{url!r} is not an MQTT URL, for example mqtt://127.0.0.1:1883")
        tls = parts.scheme == "mqtts"
        return cls(parts.hostname, parts.port or (8883 if tls else 1883), tls)

    def __str__(self) -> str:
        return f"mqtt{'s' if self.tls else ''}://{self.host}:{self.port}"


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches a bind address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _bind(value: object) -> object:
    return Bind.parse(value) if isinstance(value, str) else value


def _brokers(value: object) -> object:
    if isinstance(value, str):
        return tuple(MqttBroker.parse(url) for url in value.split(","))
    return value


BindSetting = Annotated[Bind, NoDecode, BeforeValidator(_bind)]
MqttUrls = Annotated[tuple[MqttBroker, ...], NoDecode, BeforeValidator(_brokers)]


class ServiceSettings(BaseSettings):
    """Base of every service's settings. A field's name in capitals is its variable's name."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", case_sensitive=False)

    @classmethod
    def load(cls) -> Self:
        """Read the environment. Raises SettingsError naming each invalid variable."""
        try:
            return cls()
        except ValidationError as exc:
            lines = [_complaint(error["loc"], error["msg"]) for error in exc.errors()]
            raise SettingsError("; ".join(lines)) from exc

    @classmethod
    def load_or_exit(cls) -> Self:
        """Like `load`, but an invalid value ends the process with one line."""
        try:
            return cls.load()
        except SettingsError as exc:
            stop(f"{cls.__module__.partition('.')[0]}: {exc}")


class ListenerSettings(ServiceSettings):
    """Base of the settings of a service that listens. Services have no TLS of their own."""

    allow_plaintext: bool = False

    @model_validator(mode="after")
    def _plaintext_beyond_loopback_is_allowed(self) -> Self:
        for name in type(self).model_fields:
            bind = getattr(self, name)
            if isinstance(bind, Bind) and not is_loopback(bind.host) and not self.allow_plaintext:
                raise ValueError(
                    f"{name.upper()}: {bind} is reachable from the network without TLS: "
                    "bind to 127.0.0.1, or set ALLOW_PLAINTEXT=true"
                )
        return self


def _complaint(location: tuple[int | str, ...], message: str) -> str:
    name = ".".join(str(part) for part in location).upper()
    message = message.removeprefix("Value error, ")
    if not location:  # of the settings as a whole; the message names the variable
        return message
    if name not in os.environ:
        return f"set {name}: {message[:1].lower()}{message[1:]}"
    return f"{name}: {message}"  # without the value, which may be a secret


def stop(message: str) -> NoReturn:
    """End the process because of its configuration."""
    print(message, file=sys.stderr)
    sys.exit(EX_CONFIG)
