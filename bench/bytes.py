"""Bytes on the wire per fix, TLS included: MQTT beside an HTTP PATCH. `python -m bench.bytes`.

The real Mosquitto and the real driver_api (on a database of its own), both with TLS 1.3 and a
throw-away certificate (P-256), are sent the same fixes. Counted by the kernel, on the client's own
sockets (TCP_INFO): bytes of payload both ways, and segments, each with its 40 bytes of IPv4 and TCP
headers and 12 of timestamps. Connecting (TCP, TLS, MQTT's CONNECT and SUBSCRIBE) is told apart.
The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import os
import socket
import ssl
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import uvicorn
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from bench.phones import make_fix
from doorstep.credentials import driver_token, token_sha256
from doorstep.fix import encode_fix
from doorstep.store.admin import NewDriver, register_drivers
from driver_api.app import build_app
from driver_api.database import Database as DriverDatabase
from ops.stack.addresses import any_free_port
from tests.database import cloned_database, create_template, running_cluster
from tests.integration.http_services import SilentPositions
from tests.integration.pipe_servers import Mosquitto, listens, wait_until
from tests.integration.tls import Certificates, TlsMosquitto, make_certificates

DRIVER = "courier-017"
HEADERS_BYTES = 52  # IPv4 20, TCP 20, timestamps 12
TCP_INFO_COUNTS = struct.Struct("=QQII")  # bytes_acked, bytes_received, segs_out, segs_in
TCP_INFO_OFFSET, TCP_INFO_BYTES = 120, 144
ANSWER_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Wire:
    """What has passed on a connection: TCP payload and segments, up and down."""

    up: int = 0
    down: int = 0
    segments: int = 0

    @classmethod
    def of(cls, sock: socket.socket) -> Wire:
        """Ask the kernel. All that was sent must have been answered."""
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_BYTES)
        acked, received, out, into = TCP_INFO_COUNTS.unpack_from(info, TCP_INFO_OFFSET)
        return cls(acked, received, out + into)

    def __add__(self, other: Wire) -> Wire:
        return Wire(self.up + other.up, self.down + other.down, self.segments + other.segments)

    def __sub__(self, other: Wire) -> Wire:
        return Wire(self.up - other.up, self.down - other.down, self.segments - other.segments)

    def per(self, count: int) -> dict[str, float]:
        """The share of each of `count`, with headers as `wire`."""
        whole = self.up + self.down + self.segments * HEADERS_BYTES
        shares = {name: round(value / count, 1) for name, value in asdict(self).items()}
        return {**shares, "wire": round(whole / count, 1)}


def measure_mqtt(broker: Mosquitto, authority: Path | None, messages: Sequence[bytes]) -> Result:
    """Publish each message with QoS 1 after the PUBACK of the one before."""
    client = mqtt.Client(
        CallbackAPIVersion.VERSION2, client_id=DRIVER, protocol=MQTTProtocolVersion.MQTTv311
    )
    client.username_pw_set(DRIVER, "x" * 43)
    subscribed = threading.Event()

    def subscribe(*_: Any) -> None:
        client.subscribe(f"doorstep/v1/drivers/{DRIVER}/ack", 1)

    client.on_connect = subscribe
    client.on_subscribe = lambda *_: subscribed.set()
    if authority:
        client.tls_set(str(authority))
    client.connect("127.0.0.1", broker.port, keepalive=60)
    client.loop_start()
    try:
        if not subscribed.wait(ANSWER_TIMEOUT_S):
            raise TimeoutError("the broker does not answer")
        sock: Any = client.socket()
        connected = _settled(sock)
        for message in messages:
            info = client.publish(f"doorstep/v1/drivers/{DRIVER}/position", message, qos=1)
            info.wait_for_publish(ANSWER_TIMEOUT_S)
        return Result(connected, _settled(sock) - connected)
    finally:
        client.disconnect()
        client.loop_stop()


@dataclass(frozen=True, slots=True)
class Result:
    """What connecting took, and what the fixes took after it."""

    connecting: Wire
    sending: Wire


def measure_http(
    port: int, authority: Path, token: str, messages: Sequence[bytes], *, keep_alive: bool
) -> Result:
    """PATCH each fix, or POST each array, and read the answer."""
    context = ssl.create_default_context(cafile=str(authority))
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    connecting, sending = Wire(), Wire()
    connection: http.client.HTTPSConnection | None = None
    for message in messages:
        if connection is None:
            connection = http.client.HTTPSConnection("127.0.0.1", port, context=context)
            connection.connect()
            opened = _settled(connection.sock)
            connecting += opened
        before = _settled(connection.sock)
        batch = message.startswith(b"[")
        verb, leaf = ("POST", "locations") if batch else ("PATCH", "location")
        body = b'{"fixes":' + message + b"}" if batch else message
        connection.request(verb, f"/drivers/{DRIVER}/{leaf}", body, headers)
        response = connection.getresponse()
        answer = response.read()
        if response.status != 200:
            raise RuntimeError(f"{response.status}: {answer.decode()}")
        sending += _settled(connection.sock) - before
        if not keep_alive:
            connection.close()
            connection = None
    if connection is not None:
        connection.close()
    return Result(connecting, sending)


def _settled(sock: Any) -> Wire:
    """Counts that stand still: the kernel's own ACKs are out."""
    last = Wire.of(sock)
    while True:
        time.sleep(0.05)  # a delayed ACK takes 40 ms
        if (now := Wire.of(sock)) == last:
            return now
        last = now


@contextmanager
def running_api(certificates: Certificates, token: str) -> Iterator[int]:
    """Run driver_api with TLS on a database of its own; gives the port."""
    with running_cluster() as cluster:
        create_template(cluster)
        with cloned_database(cluster) as database:
            with database.connect() as conn:
                register_drivers(conn, [NewDriver(DRIVER, "Bench", token_sha256(token))])
            port = any_free_port()
            ready, stop = threading.Event(), threading.Event()

            async def serve() -> None:
                store = await DriverDatabase.open(database.url("driver_api"), 4)
                server = uvicorn.Server(
                    uvicorn.Config(
                        build_app(store, SilentPositions()),
                        port=port,
                        ssl_certfile=str(certificates.certificate),
                        ssl_keyfile=str(certificates.key),
                        log_level="warning",
                        access_log=False,
                        server_header=False,
                    )
                )
                task = asyncio.create_task(server.serve())
                ready.set()
                await asyncio.to_thread(stop.wait)
                server.should_exit = True
                await task
                await store.close()

            thread = threading.Thread(target=lambda: asyncio.run(serve()))
            thread.start()
            if not ready.wait(60):
                raise TimeoutError("driver_api does not start")
            wait_until(lambda: listens(port), 60, "driver_api listens")
            try:
                yield port
            finally:
                stop.set()
                thread.join()


def main() -> int:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(
        prog="bench.bytes",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--fixes", type=int, default=100, help="per way of sending (100)")
    count = parser.parse_args().fixes // 5 * 5
    token = driver_token(b"k" * 32, DRIVER)

    def fixes(boot: str) -> list[bytes]:
        return [encode_fix(make_fix(boot, seq)) for seq in range(1, count + 1)]

    def fives(boot: str) -> list[bytes]:
        ones = fixes(boot)
        return [b"[" + b",".join(ones[at : at + 5]) + b"]" for at in range(0, count, 5)]

    results: dict[str, Result] = {}
    with tempfile.TemporaryDirectory(prefix="doorstep-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        made = make_certificates(folder)
        plain, inside = Mosquitto(folder / "plain"), TlsMosquitto(folder / "tls", made)
        ways: list[tuple[Mosquitto, Path | None, str]] = [
            (plain, None, "MQTT"),
            (inside, made.authority, "MQTT, TLS"),
        ]
        for broker, authority, how in ways:
            broker.start()
            try:
                results[how] = measure_mqtt(broker, authority, fixes("b0b1b2b3b4b5"))
                results[f"{how}, five fixes a message"] = measure_mqtt(
                    broker, authority, fives("b0b1b2b3b4b5")
                )
            finally:
                broker.stop()
        with running_api(made, token) as port:
            for how, messages, keep_alive in (
                ("PATCH, TLS, kept alive", fixes("c0c1c2c3c4c5"), True),
                ("PATCH, TLS, a connection each", fixes("d0d1d2d3d4d5"), False),
                ("POST, TLS, kept alive, five fixes", fives("e0e1e2e3e4e5"), True),
            ):
                results[how] = measure_http(
                    port, made.authority, token, messages, keep_alive=keep_alive
                )
    table = {}
    for how, result in results.items():
        connections = count if "connection each" in how else 1
        per_fix = result.sending.per(count)
        if connections > 1:
            per_fix = (result.sending + result.connecting).per(count)
        connecting = result.connecting.per(connections)
        table[how] = {"per_fix": per_fix, "connecting": connecting}
        print(f"{how:36} per fix {per_fix}  connecting {connecting}", file=sys.stderr)
    fix_bytes = len(fixes("b0b1b2b3b4b5")[0])
    print(
        json.dumps(
            {
                "bench": "bytes",
                "fixes": count,
                "fix_bytes": fix_bytes,
                "kernel": os.uname().release,
                "results": table,
            }
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
