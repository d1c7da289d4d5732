"""Many devices: plain sockets with the part of MQTT 3.1.1 that publishes with QoS 1.

They cost a few microseconds per fix, where a client library would be the bottleneck. Each keeps at
most `window` publishes unacknowledged.
"""

from __future__ import annotations

import random
import selectors
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass

from doorstep import mqtt_packets
from doorstep.fix import Fix, encode_fix
from doorstep.fix.instants import instant_of
from doorstep.mqtt_topics import POSITION, topic_of
from doorstep.settings import Bind

CONNECT_WAVE = 50  # connections at once: Mosquitto's listen backlog is 100
FLORENCE = (43.7696, 11.2558)


@dataclass(slots=True)
class Phone:
    """One connection and its progress."""

    driver_id: str
    sock: socket.socket
    sent: int = 0
    acked: int = 0
    rest: bytes = b""


def connect_phones(bind: Bind, passwords: dict[str, str]) -> list[Phone]:
    """Connect each driver, in waves that wait for CONNACK."""
    phones: list[Phone] = []
    drivers = list(passwords.items())
    for start in range(0, len(drivers), CONNECT_WAVE):
        wave = []
        for driver_id, password in drivers[start : start + CONNECT_WAVE]:
            sock = socket.create_connection((bind.host, bind.port), 10)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.sendall(mqtt_packets.connect(driver_id, password))
            wave.append(Phone(driver_id, sock))
        for phone in wave:
            answer = phone.sock.recv(4)
            if answer != mqtt_packets.ACCEPTED_PACKET:
                raise ConnectionError(f"{phone.driver_id}: CONNACK {answer!r}")
            phone.sock.setblocking(False)
        phones += wave
    return phones


def publish(phones: Sequence[Phone], fixes_each: int, boot: str, *, window: int = 50) -> float:
    """Publish `fixes_each` fixes per phone as fast as the broker takes them; return the seconds."""
    started_s = time.monotonic()
    selector = selectors.DefaultSelector()
    for phone in phones:
        phone.sent = phone.acked = 0
        selector.register(phone.sock, selectors.EVENT_READ, phone)
    under_way = len(phones)
    for phone in phones:
        _send_more(phone, fixes_each, boot, window)
    while under_way:
        for key, _ in selector.select(10):
            phone = key.data
            data = phone.rest + phone.sock.recv(65_536)
            whole = len(data) // 4 * 4  # a PUBACK has four bytes
            phone.rest = data[whole:]
            phone.acked += whole // 4
            if phone.acked == fixes_each:
                selector.unregister(phone.sock)
                under_way -= 1
            elif phone.sent - phone.acked <= window // 2:
                _send_more(phone, fixes_each, boot, window)
    return time.monotonic() - started_s


def _send_more(phone: Phone, fixes_each: int, boot: str, window: int) -> None:
    topic = topic_of(phone.driver_id, POSITION)
    frames = []
    while phone.sent < fixes_each and phone.sent - phone.acked < window:
        phone.sent += 1
        fix = encode_fix(make_fix(boot, phone.sent))
        frames.append(mqtt_packets.publish(topic, phone.sent, fix))
    phone.sock.setblocking(True)
    phone.sock.sendall(b"".join(frames))
    phone.sock.setblocking(False)


def make_fix(boot: str, seq: int) -> Fix:
    """Make a fix somewhere in Florence, dated now."""
    return Fix(
        boot,
        seq,
        instant_of(int(time.time() * 1000)),
        round(FLORENCE[0] + random.uniform(-0.02, 0.02), 6),
        round(FLORENCE[1] + random.uniform(-0.02, 0.02), 6),
        accuracy_m=round(random.uniform(3, 20), 1),
        speed_mps=round(random.uniform(0, 12), 1),
        heading_deg=float(random.randrange(360)),
        battery=0.8,
    )
