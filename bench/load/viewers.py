"""`python -m bench.load.viewers PLAN`: customers who follow their order over SSE.

One epoll loop holds all streams of GET /track/{order_id}/stream, and measures the latency of each
position from its `fix_at`.
"""

from __future__ import annotations

import json
import os
import re
import select
import socket
import sys
import time
from collections import deque
from datetime import datetime
from pathlib import Path
from typing import Any

from bench.load.histogram import Histogram

WAVE = 20  # concurrent connects: each costs a snapshot query
TICK_S = 0.002
READ_BYTES = 65_536
_POSITION = re.compile(rb'event: position\ndata: [^\n]*?"fix_at":"([0-9TZ:.+-]+)"')
_SNAPSHOT = b"event: snapshot"
_BUSY = (b"HTTP/1.1 503", b"HTTP/1.1 429")
RETRY_S = 1.0


class Viewers:
    """All streams."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self._address = (str(plan["host"]), int(plan["port"]))
        self._pending: list[tuple[str, str]] = [(one[0], one[1]) for one in plan["viewers"][::-1]]
        self._targets: dict[int, tuple[str, str]] = {}  # (order_id, token)
        self._retry: deque[tuple[float, tuple[str, str]]] = deque()
        self._epoll = select.epoll()
        self._sockets: dict[int, socket.socket] = {}
        self._tails: dict[int, bytes] = {}
        self._watching: set[int] = set()
        self._window = (0.0, 0.0)
        self._latency = Histogram()
        self._latency_in_window = Histogram()
        self.positions = 0
        self.disconnects = 0

    def handle_command(self, command: dict[str, Any]) -> dict[str, Any] | None:
        """Handle a command of the coordinator."""
        if command["do"] == "publish":
            self._window = tuple(command["window_ms"])
            self._latency_in_window = Histogram()
        elif command["do"] == "latency":
            return {"latency": list(self._latency_in_window.counts.items())}
        return None

    def run_once(self) -> None:
        """Open pending streams, and read from all."""
        while self._retry and self._retry[0][0] <= time.time():
            self._pending.append(self._retry.popleft()[1])
        while self._pending and len(self._sockets) - len(self._watching) < WAVE:
            self._connect(self._pending.pop())
        for fd, _mask in self._epoll.poll(TICK_S, 1024):
            self._read(fd)

    def _connect(self, target: tuple[str, str]) -> None:
        order_id, token = target
        connection = socket.create_connection(self._address)
        request = (
            f"GET /track/{order_id}/stream HTTP/1.1\r\nHost: load\r\n"
            f"Authorization: Bearer {token}\r\nAccept: text/event-stream\r\n\r\n"
        )
        connection.sendall(request.encode())
        connection.setblocking(False)
        self._sockets[connection.fileno()] = connection
        self._tails[connection.fileno()] = b""
        self._targets[connection.fileno()] = target
        self._epoll.register(connection.fileno(), select.EPOLLIN)

    def _read(self, fd: int) -> None:
        try:
            received = os.read(fd, READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            received = b""
        if not received:
            self.disconnects += 1
            self._retry.append((time.time() + RETRY_S, self._targets[fd]))
            self._drop(fd)
            return
        text = self._tails[fd] + received
        if fd not in self._watching:
            if text.startswith(_BUSY):
                self._retry.append((time.time() + RETRY_S, self._targets[fd]))
                self._drop(fd)
                return
            if text.startswith(b"HTTP/1.1 ") and not text.startswith(b"HTTP/1.1 200"):
                raise PermissionError(text.partition(b"\r\n")[0].decode())
            if _SNAPSHOT in text:
                self._watching.add(fd)
        now_s = time.time()
        end = 0
        for match in _POSITION.finditer(text):
            end = match.end()
            due_ms = datetime.fromisoformat(match[1].decode()).timestamp() * 1000
            latency_ms = now_s * 1000 - due_ms
            self.positions += 1
            self._latency.add(latency_ms)
            if self._window[0] <= due_ms < self._window[1]:
                self._latency_in_window.add(latency_ms)
        rest = text[end:]
        begins = max(rest.rfind(b"event: "), len(rest) - 8)
        self._tails[fd] = rest[begins:] if len(rest) - begins < READ_BYTES else b""

    def _drop(self, fd: int) -> None:
        self._epoll.unregister(fd)
        self._sockets.pop(fd).close()
        self._watching.discard(fd)
        del self._tails[fd], self._targets[fd]

    def stats(self) -> dict[str, Any]:
        """Totals so far, and the latencies since the last call."""
        found = {
            "watching": len(self._watching),
            "positions": self.positions,
            "disconnects": self.disconnects,
            "second_latency": list(self._latency.counts.items()),
        }
        self._latency = Histogram()
        return found


def main() -> int:
    """Run until standard input ends."""
    plan = json.loads(Path(sys.argv[1]).read_text(encoding="ascii"))
    viewers = Viewers(plan)
    os.set_blocking(0, False)
    partial, emitted_at = b"", 0

    def emit(line: dict[str, Any]) -> None:
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()

    while True:
        viewers.run_once()
        try:
            received = os.read(0, 65_536)
        except BlockingIOError:
            received = None
        if received == b"":
            return 0
        *lines, partial = (partial + (received or b"")).split(b"\n")
        for line in lines:
            response = viewers.handle_command(json.loads(line))
            if response is not None:
                emit(response)
        if int(time.time()) != emitted_at:
            emitted_at = int(time.time())
            emit(viewers.stats())


if __name__ == "__main__":
    sys.exit(main())
