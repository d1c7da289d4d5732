"""Where each part of a stack listens: chosen at the start, remembered while it is up."""

from __future__ import annotations

import json
import random
import socket
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from doorstep.settings import Bind
from ops.stack.paths import StackError
from ops.stack.settings import StackSettings

OTHER_PORT_OFFSET = 10_000  # 1883 taken: 11883 is tried, then 11884, …
TRIES = 200
ANY_PORTS = range(10_000, 32_000)
EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - names, not a choice


@dataclass(frozen=True, slots=True)
class Addresses:
    """The binds of one stack. `reach` gives the address that a client on this machine uses."""

    mqtt: tuple[Bind, ...]
    kafka: Bind
    kafka_controller: Bind
    database: Bind
    tracking_api: Bind
    driver_api: Bind
    bridge: Bind
    driver_events: Bind

    @property
    def mqtt_url(self) -> str:
        """The ordered list of brokers, as MQTT_URL has it."""
        return ",".join(f"mqtt://{reach(broker)}" for broker in self.mqtt)

    @property
    def driver_api_url(self) -> str:
        return f"http://{reach(self.driver_api)}"

    @property
    def tracking_api_url(self) -> str:
        return f"http://{reach(self.tracking_api)}"

    def save(self, path: Path) -> None:
        """Remember the addresses."""
        named = {
            name: [str(one) for one in value] if isinstance(value, tuple) else str(value)
            for name, value in ((name, getattr(self, name)) for name in self.__slots__)
        }
        part = path.with_name(path.name + ".part")
        part.write_text(json.dumps(named, indent=1) + "\n", encoding="utf-8")
        part.replace(path)

    @classmethod
    def load(cls, path: Path) -> Addresses | None:
        """Read the remembered addresses; None if there are none."""
        try:
            named = json.loads(path.read_text(encoding="utf-8"))
            one = {name: Bind.parse(text) for name, text in named.items() if name != "mqtt"}
            return cls(mqtt=tuple(Bind.parse(text) for text in named["mqtt"]), **one)
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            raise StackError(f"{path} can't be read: {exc}") from exc


def reach(bind: Bind) -> Bind:
    """Give the address at which a client on this machine reaches a bind."""
    return Bind(EVERYWHERE.get(bind.host, bind.host), bind.port)


def choose_addresses(settings: StackSettings, say: Callable[[str], None]) -> Addresses:
    """Take the ports of the settings, or others where one is taken, and say so."""
    chooser = _Chooser(say)
    outside, inside = settings.doorstep_bind, settings.doorstep_internal_bind
    return Addresses(
        mqtt=tuple(
            chooser.choose(f"mosquitto-{number + 1}", outside, settings.mqtt_port, number)
            for number in range(settings.mqtt_brokers)
        ),
        kafka=chooser.choose("kafka", inside, settings.kafka_port),
        kafka_controller=chooser.choose("kafka's controller", "127.0.0.1", 0),
        database=chooser.choose("postgres", inside, settings.database_port),
        tracking_api=chooser.choose("tracking_api", outside, settings.tracking_api_port),
        driver_api=chooser.choose("driver_api", outside, settings.driver_api_port),
        bridge=chooser.choose("bridge", inside, settings.bridge_port),
        driver_events=chooser.choose("driver_events", inside, settings.driver_events_port),
    )


class _Chooser:
    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._chosen: set[int] = set()

    def choose(self, part: str, host: str, wanted: int, number: int = 0) -> Bind:
        """Give one part a port; `number` counts the brokers, each at the next port."""
        if wanted == 0:
            return self._take(host, any_free_port(host, self._chosen))
        wanted += number
        if self._is_free(host, wanted):
            return self._take(host, wanted)
        for port in range(wanted + OTHER_PORT_OFFSET, wanted + OTHER_PORT_OFFSET + TRIES):
            if port <= 65535 and self._is_free(host, port):
                self._say(f"port {wanted} is taken by another program: {part} listens on {port}")
                return self._take(host, port)
        raise StackError(f"no free port for {part} near {wanted + OTHER_PORT_OFFSET}")

    def _take(self, host: str, port: int) -> Bind:
        self._chosen.add(port)
        return Bind(host, port)

    def _is_free(self, host: str, port: int) -> bool:
        return port not in self._chosen and can_listen(host, port)


def can_listen(host: str, port: int) -> bool:
    """Say whether a server could listen there."""
    try:
        with _bound(host, port):
            return True
    except OSError:
        return False


def any_free_port(host: str = "127.0.0.1", avoid: Collection[int] = ()) -> int:
    """Choose a port that nobody listens on.

    It lies below those that the kernel gives to connections (32768 and up): one of them could have
    it before the server does.
    """
    for _ in range(TRIES):
        port = random.choice(ANY_PORTS)
        if port not in avoid and can_listen(host, port):
            return port
    raise StackError("the machine has no free port")


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(1)
    except OSError:
        listener.close()
        raise
    return listener
