"""`python -m bench.bare.bridge PLAN`: a minimal MQTT-to-Kafka bridge.

PLAN is a JSON file: brokers [[host, port], ...], password, kafka, topic. Stops when
standard input closes.
"""

from __future__ import annotations

import json
import os
import select
import socket
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any

from confluent_kafka import Producer

from doorstep import mqtt_packets
from doorstep.mqtt_topics import POSITION, PREFIX, filter_of

USER = "bridge"  # the broker's ACL lets it read all positions
RECEIVE_BYTES = 256 * 1024
POLL_S = 0.01  # as in the bridge
KEEPALIVE_S = 3600
_TOPIC_END = len(POSITION) + 1


class Session:
    """One broker."""

    def __init__(self, host: str, port: int, password: str) -> None:
        self.socket = socket.create_connection((host, port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall(mqtt_packets.connect(USER, password, keepalive_s=KEEPALIVE_S))
        if self.socket.recv(4)[3] != 0:
            raise PermissionError("the broker refuses the bridge")
        self.socket.sendall(mqtt_packets.subscribe(1, [filter_of(POSITION)]))
        if self.socket.recv(5)[:1] != b"\x90":
            raise ConnectionError("no SUBACK")
        self.socket.setblocking(False)
        self.rest = b""
        # chunks in the order received: [records that Kafka has not confirmed, their PUBACKs]
        self.chunks: deque[list[Any]] = deque()

    def read(self, producer: Producer, topic: str) -> int:
        """Produce the received messages to Kafka; return their number."""
        data = self.rest + self.socket.recv(RECEIVE_BYTES)
        chunk: list[Any] = [0, b""]

        def confirmed(error: object, _message: object) -> None:
            if error is not None:
                raise RuntimeError(str(error))
            chunk[0] -= 1

        at, end, pubacks = 0, len(data), []
        produce = producer.produce
        while at + 5 <= end:
            length, body = data[at + 1], at + 2
            if length >= 0x80:
                length, body = length & 0x7F | data[at + 2] << 7, at + 3
            if body + length > end:
                break
            if data[at] & 0xF6 == 0x32:
                topic_end = body + 2 + (data[body] << 8 | data[body + 1])
                payload = data[topic_end + 2 : body + length]
                key = data[body + 2 + len(PREFIX) : topic_end - _TOPIC_END]
                produce(topic, payload, key, on_delivery=confirmed)
                pubacks.append(data[topic_end : topic_end + 2])
            at = body + length
        self.rest = data[at:]
        if pubacks:
            chunk[0] += len(pubacks)
            chunk[1] = b"\x40\x02" + b"\x40\x02".join(pubacks)
            self.chunks.append(chunk)
        return len(pubacks)

    def acknowledge(self) -> None:
        """Send the PUBACKs of confirmed records, in order."""
        ready = []
        while self.chunks and self.chunks[0][0] == 0:
            ready.append(self.chunks.popleft()[1])
        if ready:
            self.socket.setblocking(True)
            self.socket.sendall(b"".join(ready))
            self.socket.setblocking(False)


def main() -> int:
    """Run until standard input ends."""
    plan = json.loads(Path(sys.argv[1]).read_text(encoding="ascii"))
    producer = Producer(
        {
            **plan["kafka"],
            "enable.idempotence": True,
            "partitioner": "murmur2_random",
            "linger.ms": 50,  # as in the bridge
            "compression.type": "lz4",
            "queue.buffering.max.messages": 1_000_000,
        }
    )
    sessions = {}
    poll = select.epoll()
    for host, port in plan["brokers"]:
        session = Session(host, port, plan["password"])
        sessions[session.socket.fileno()] = session
        poll.register(session.socket, select.EPOLLIN)
    os.set_blocking(0, False)
    messages = reported_at = 0
    while True:
        began = time.time()
        for fd, _mask in poll.poll(POLL_S):
            messages += sessions[fd].read(producer, plan["topic"])
        producer.poll(0)
        for session in sessions.values():
            session.acknowledge()
        remaining_s = began + POLL_S - time.time()
        if remaining_s > 0:
            time.sleep(remaining_s)  # larger chunks
        if int(began) != reported_at:
            reported_at = int(began)
            sys.stdout.write(json.dumps({"messages": messages}) + "\n")
            sys.stdout.flush()
            if _has_ended():
                return 0


def _has_ended() -> bool:
    try:
        return os.read(0, 4096) == b""
    except BlockingIOError:
        return False


if __name__ == "__main__":
    sys.exit(main())
