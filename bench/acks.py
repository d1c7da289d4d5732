"""What the committed watermark costs a fix: `python -m bench.acks [--phones 1000] [--seconds 60]`.

Phones that listen for their acks send a fix each every 4 s through the real Mosquitto, bridge,
Kafka, driver_events and PostgreSQL. driver_events runs three times in turn: without acks (an
ACK_EVERY_S of a day; the first one of a boot falls into the warm-up), and with one every 30 s and
every 5 s. Told per fix: CPU of each part, and the bytes that a phone gets, PUBACKs apart. The
ratios are to the run without acks of the same call. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import selectors
import socket
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.ingest import cpu_s
from bench.phones import Phone, connect_phones, make_fix
from doorstep.fix import encode_fix
from doorstep.mqtt_topics import ACK, POSITION, topic_of
from doorstep.settings import Bind
from doorstep.store import admin
from ops.stack.postgres import PostgresCluster
from tests.database import cloned_database, create_template, running_cluster
from tests.integration.pipe_servers import Kafka, Mosquitto
from tests.integration.pipe_services import bridge_on, driver_events_on

FIX_EVERY_S = 4.0
WARM_UP_S = 10.0
WAYS = {"off": 86_400.0, "every 30 s": 30.0, "every 5 s": 5.0}
PUBACK_BYTES = 4


@dataclass(slots=True)
class Heard:
    """What the phones were sent."""

    bytes: int = 0
    pubacks: int = 0
    acks: int = 0


def main() -> int:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(
        prog="bench.acks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--phones", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each way (60)")
    options = parser.parse_args()
    names = [f"bench-{number:05}" for number in range(options.phones)]
    with (
        tempfile.TemporaryDirectory(prefix="doorstep-bench-") as name,
        running_cluster() as cluster,
    ):
        folder = Path(name)
        folder.chmod(0o755)
        create_template(cluster)
        broker, kafka = Mosquitto(folder / "mosquitto"), Kafka(folder / "kafka")
        with cloned_database(cluster) as database:
            with database.connect() as conn:
                admin.register_drivers(conn, [admin.NewDriver(one, one, None) for one in names])
            broker.start()
            kafka.start()
            kafka.create_topics()
            bridge = bridge_on(folder / "bridge", broker.url, kafka.port)
            bridge.start()
            try:
                postgres = _pid_of(cluster)
                phones = connect_phones(
                    Bind("127.0.0.1", broker.port), dict.fromkeys(names, "none")
                )
                _subscribe(phones)
                results: dict[str, dict[str, Any]] = {}
                for number, (way, every_s) in enumerate(WAYS.items()):
                    events = driver_events_on(
                        folder / f"events-{number}",
                        database.url("driver_events"),
                        broker.url,
                        kafka.port,
                        ACK_EVERY_S=str(every_s),
                    )
                    events.start()
                    pids = {
                        "driver_events": events.pid,
                        "mosquitto": broker.pid,
                        "postgres": postgres,
                    }
                    _send(phones, f"boot{number}", 1, WARM_UP_S)
                    first = 1 + round(WARM_UP_S / FIX_EVERY_S)
                    before = {part: cpu_s(pid) for part, pid in pids.items()}
                    heard, fixes = _send(phones, f"boot{number}", first, options.seconds)
                    cpu = {part: cpu_s(pid) - before[part] for part, pid in pids.items()}
                    events.stop()
                    results[way] = _result(cpu, heard, fixes)
                    print(way, results[way], file=sys.stderr, flush=True)
            finally:
                bridge.stop()
                broker.stop()
                kafka.stop()
    off = results["off"]["cpu_us_per_fix"]
    for way in ("every 30 s", "every 5 s"):
        cost = results[way]["cpu_us_per_fix"]
        results[way]["ratio"] = {part: round(cost[part] / off[part], 2) for part in cost}
    shape = {"phones": options.phones, "seconds": options.seconds, "cores": os.cpu_count()}
    print(json.dumps({"bench": "acks", **shape, "load": os.getloadavg()[0], "results": results}))
    return 0


def _pid_of(cluster: PostgresCluster) -> int:
    pid = cluster.pid()
    if pid is None:
        raise RuntimeError("PostgreSQL has gone")
    return pid


def _result(cpu: Mapping[str, float], heard: Heard, fixes: int) -> dict[str, Any]:
    acks_bytes = heard.bytes - heard.pubacks * PUBACK_BYTES
    return {
        "fixes": fixes,
        "acks": heard.acks,
        "cpu_us_per_fix": {part: round(s / fixes * 1e6, 1) for part, s in cpu.items()},
        "ack_bytes_per_fix": round(acks_bytes / fixes, 1),
        "bytes_per_ack": round(acks_bytes / max(1, heard.acks), 1),
    }


def _subscribe(phones: Sequence[Phone]) -> None:
    for phone in phones:
        topic = topic_of(phone.driver_id, ACK).encode()
        body = b"\x00\x01" + len(topic).to_bytes(2, "big") + topic + b"\x01"
        phone.sock.setblocking(True)
        phone.sock.sendall(b"\x82" + bytes([len(body)]) + body)
        if phone.sock.recv(5)[:1] != b"\x90":
            raise ConnectionError(f"{phone.driver_id}: no SUBACK")
        phone.sock.setblocking(False)


def _send(phones: Sequence[Phone], boot: str, first: int, seconds: float) -> tuple[Heard, int]:
    """Send one fix per phone every 4 s, evenly spread, and listen: what came, how many went."""
    heard = Heard()
    selector = selectors.DefaultSelector()
    for phone in phones:
        phone.rest = b""
        selector.register(phone.sock, selectors.EVENT_READ, phone)
    rounds = round(seconds / FIX_EVERY_S)
    total = rounds * len(phones)
    began = time.monotonic()
    sent = 0
    while sent < total or time.monotonic() - began < seconds:
        due = min(total, int((time.monotonic() - began) / FIX_EVERY_S * len(phones)) + 1)
        for number in range(sent, due):
            phone = phones[number % len(phones)]
            _publish(phone.sock, phone.driver_id, boot, first + number // len(phones))
        sent = due
        for key, _ in selector.select(0.01):
            _listen(key.data, heard)
    selector.close()
    return heard, total


def _publish(sock: socket.socket, driver_id: str, boot: str, seq: int) -> None:
    topic = topic_of(driver_id, POSITION).encode()
    body = len(topic).to_bytes(2, "big") + topic + (seq % 65_535 + 1).to_bytes(2, "big")
    body += encode_fix(make_fix(boot, seq))
    size = len(body)  # from 128 to 16,383: two bytes
    sock.sendall(bytes([0x32, size % 128 | 0x80, size // 128]) + body)


def _listen(phone: Phone, heard: Heard) -> None:
    data = phone.sock.recv(65_536)
    if not data:
        raise ConnectionError(f"{phone.driver_id}: closed by the broker")
    heard.bytes += len(data)
    data = phone.rest + data
    while len(data) >= 2:
        size, at = data[1] & 0x7F, 2
        if data[1] & 0x80:
            if len(data) < 3:
                break
            size, at = size + data[2] * 128, 3
        if len(data) < at + size:
            break
        heard.pubacks += data[0] & 0xF0 == 0x40
        heard.acks += data[0] & 0xF0 == 0x30
        data = data[at + size :]
    phone.rest = data


if __name__ == "__main__":
    sys.exit(main())
