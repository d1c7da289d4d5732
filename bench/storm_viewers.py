"""Viewers of orders that reconnect as browsers do: `python -m bench.storm_viewers PLAN`.

PLAN is a JSON file: `port`, and `viewers`, of order_id and token each. One epoll loop holds all
streams. Each viewer has one of 500 loopback addresses, as viewers have their own. A viewer whose
connection fails waits for the random `retry` that its last stream set (at first 0.5 to 2.5 s).
With `page` a viewer is a page that opens: it trades the token, reads GET /track, follows.

Answers lines on stdin: `count` with the number of viewers with a snapshot, `times` with the instant
(CLOCK_MONOTONIC) of each one's newest snapshot, `reset` forgets them.
"""

from __future__ import annotations

import contextlib
import heapq
import json
import random
import re
import select
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ADDRESSES = 500
CONNECTS_AT_ONCE = 200  # between two looks at the sockets
RETRY_S = (0.5, 2.5)
_RETRY = re.compile(rb"retry: (\d+)")
_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)


class Viewer:
    """One viewer. `steps` are the requests that are still to be answered before the stream."""

    def __init__(self, number: int, order_id: str, token: str, *, page: bool) -> None:
        self.source = f"127.0.{1 + number % ADDRESSES // 250}.{1 + number % 250}"
        self.order_id, self.token, self.page = order_id, token, page
        self.retry_s = random.uniform(*RETRY_S)
        self.snapshot_at = 0.0
        self.received = b""
        self.steps: list[bytes] = []

    def requests(self) -> Iterator[bytes]:
        """Yield the requests of one connection."""
        head = f"HTTP/1.1\r\nHost: storm\r\nAuthorization: Bearer {self.token}\r\n"
        if self.page:
            body = json.dumps({"token": self.token})
            yield (
                f"POST /track/{self.order_id}/session {head}Content-Type: application/json\r\n"
                f"Content-Length: {len(body)}\r\n\r\n{body}"
            ).encode()
            yield f"GET /track/{self.order_id} {head}\r\n".encode()
        yield f"GET /track/{self.order_id}/stream {head}\r\n".encode()


class Viewers:
    """All viewers in one epoll loop."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self._port = int(plan["port"])
        page = bool(plan.get("page"))
        self._viewers = [Viewer(n, *one, page=page) for n, one in enumerate(plan["viewers"])]
        self._epoll = select.epoll()
        self._open: dict[int, tuple[socket.socket, Viewer]] = {}
        self._due = [(0.0, n) for n in range(len(self._viewers))]
        self._numbers = {id(one): n for n, one in enumerate(self._viewers)}

    def run(self) -> None:
        """Run until stdin is closed."""
        self._epoll.register(sys.stdin.fileno(), select.EPOLLIN)
        while True:
            now_s = time.monotonic()
            for _ in range(CONNECTS_AT_ONCE):
                if not self._due or self._due[0][0] > now_s:
                    break
                self._connect(self._viewers[heapq.heappop(self._due)[1]])
            busy = bool(self._due) and self._due[0][0] <= now_s
            for number, events in self._epoll.poll(0 if busy else 0.01):
                if number == sys.stdin.fileno():
                    if not self._obey(sys.stdin.readline().strip()):
                        return
                else:
                    self._handle(number, events)

    def _obey(self, command: str) -> bool:
        answer: object = None
        if command == "count":
            answer = sum(one.snapshot_at > 0 for one in self._viewers)
        elif command == "times":
            answer = [one.snapshot_at for one in self._viewers]
        elif command == "reset":
            for one in self._viewers:
                one.snapshot_at = 0.0
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
        return bool(command)

    def _connect(self, viewer: Viewer) -> None:
        connection = socket.socket()
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT
        connection.bind((viewer.source, 0))
        viewer.received, viewer.steps = b"", list(viewer.requests())
        with contextlib.suppress(BlockingIOError):
            connection.connect(("127.0.0.1", self._port))
        self._open[connection.fileno()] = connection, viewer
        self._epoll.register(connection.fileno(), select.EPOLLOUT)

    def _handle(self, number: int, events: int) -> None:
        connection, viewer = self._open[number]
        try:
            if events & select.EPOLLOUT:
                connection.send(viewer.steps[0])
                self._epoll.modify(number, select.EPOLLIN)
                return
            data = connection.recv(65_536)
        except OSError:
            data = b""
        if data:
            self._read(connection, viewer, data)
        else:
            self._close(number, connection, viewer)

    def _read(self, connection: socket.socket, viewer: Viewer, data: bytes) -> None:
        if not viewer.steps:  # after the snapshot
            if retry := _RETRY.search(data):
                viewer.retry_s = int(retry[1]) / 1000
            return
        viewer.received += data
        head, end, body = viewer.received.partition(b"\r\n\r\n")
        if not end:
            return
        if len(viewer.steps) > 1:
            length = _LENGTH.search(head)
            if length is None or len(body) >= int(length[1]):
                viewer.steps.pop(0)
                viewer.received = b""
                connection.send(viewer.steps[0])
        elif b"event: snapshot" in body:
            viewer.snapshot_at = time.monotonic()
            if retry := _RETRY.search(body):
                viewer.retry_s = int(retry[1]) / 1000
            viewer.steps, viewer.received = [], b""
        elif not head.startswith(b"HTTP/1.1 200"):
            connection.shutdown(socket.SHUT_RDWR)  # refused: closed, and tried again

    def _close(self, number: int, connection: socket.socket, viewer: Viewer) -> None:
        self._epoll.unregister(number)
        connection.close()
        del self._open[number]
        due_s = time.monotonic() + viewer.retry_s
        heapq.heappush(self._due, (due_s, self._numbers[id(viewer)]))


if __name__ == "__main__":
    Viewers(json.loads(Path(sys.argv[1]).read_text())).run()
