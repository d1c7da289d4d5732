"""`python -m bench.load.viewers PLAN`: customers who watch their order over SSE.

One epoll loop holds all streams of GET /track/{order_id}/stream. Of each position that comes it
notes how long after its fix was due: the fix's own instant stands in it.
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

WAVE = 20  # opening at once: each asks the database for its snapshot
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
        self._wanted: list[tuple[str, str]] = [(one[0], one[1]) for one in plan["viewers"][::-1]]
        self._asked: dict[int, tuple[str, str]] = {}  # (order_id, token)
        self._retry: deque[tuple[float, tuple[str, str]]] = deque()
        self._epoll = select.epoll()
        self._sockets: dict[int, socket.socket] = {}
        self._tails: dict[int, bytes] = {}
        self._watching: set[int] = set()
        self._window = (0.0, 0.0)
        self._latency = Histogram()
        self._latency_in_window = Histogram()
        self.positions = 0
        self.lost_connections = 0

    def obey(self, command: dict[str, Any]) -> dict[str, Any] | None:
        """Do what the conductor says."""
        if command["do"] == "flow":
            self._window = tuple(command["window_ms"])
            self._latency_in_window = Histogram()
        elif command["do"] == "answer":
            return {"answer": list(self._latency_in_window.counts.items())}
        return None

    def turn(self) -> None:
        """Connect some more, and read what has come."""
        while self._retry and self._retry[0][0] <= time.time():
            self._wanted.append(self._retry.popleft()[1])
        while self._wanted and len(self._sockets) - len(self._watching) < WAVE:
            self._connect(self._wanted.pop())
        for fd, _mask in self._epoll.poll(TICK_S, 1024):
            self._read(fd)

    def _connect(self, asked: tuple[str, str]) -> None:
        order_id, token = asked
        connection = socket.create_connection(self._address)
        request = (
            f"GET /track/{order_id}/stream HTTP/1.1\r\nHost: load\r\n"
            f"Authorization: Bearer {token}\r\nAccept: text/event-stream\r\n\r\n"
        )
        connection.sendall(request.encode())
        connection.setblocking(False)
        self._sockets[connection.fileno()] = connection
        self._tails[connection.fileno()] = b""
        self._asked[connection.fileno()] = asked
        self._epoll.register(connection.fileno(), select.EPOLLIN)

    def _read(self, fd: int) -> None:
        try:
            fresh = os.read(fd, READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            fresh = b""
        if not fresh:
            self.lost_connections += 1
            self._retry.append((time.time() + RETRY_S, self._asked[fd]))
            self._drop(fd)
            return
        text = self._tails[fd] + fresh
        if fd not in self._watching:
            if text.startswith(_BUSY):
                self._retry.append((time.time() + RETRY_S, self._asked[fd]))
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
        del self._tails[fd], self._asked[fd]

    def figures(self) -> dict[str, Any]:
        """What has come so far, and the latencies since the last time."""
        found = {
            "watching": len(self._watching),
            "positions": self.positions,
            "lost_connections": self.lost_connections,
            "latency": list(self._latency.counts.items()),
        }
        self._latency = Histogram()
        return found


def main() -> int:
    """Run until standard input ends."""
    plan = json.loads(Path(sys.argv[1]).read_text(encoding="ascii"))
    viewers = Viewers(plan)
    os.set_blocking(0, False)
    waiting, said_at = b"", 0

    def say(line: dict[str, Any]) -> None:
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()

    while True:
        viewers.turn()
        try:
            fresh = os.read(0, 65_536)
        except BlockingIOError:
            fresh = None
        if fresh == b"":
            return 0
        *lines, waiting = (waiting + (fresh or b"")).split(b"\n")
        for line in lines:
            answer = viewers.obey(json.loads(line))
            if answer is not None:
                say(answer)
        if int(time.time()) != said_at:
            said_at = int(time.time())
            say(viewers.figures())


if __name__ == "__main__":
    sys.exit(main())
