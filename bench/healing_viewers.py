"""Viewers for `bench.healing`: many sockets in one process, which come back as pages do.

    python -m bench.healing_viewers PORT FIRST < PATHS

Each line of standard input is an order's id and a token. Says `back T SLOWEST` whenever all have
a snapshot: T, when the last one came, on this machine's monotonic clock, and the longest that
anybody waited from its connection to the snapshot, in seconds.
"""

from __future__ import annotations

import heapq
import random
import select
import socket
import sys
import time

AGAIN_S = 0.5  # as the pages' first tries, give or take half; then they grow
SLOWER_BY, SLOWEST_S, QUICK_TRIES = 1.6, 10.0, 12
CONNECT_WITHIN_S = 15.0
OPENING_AT_ONCE = 100  # of the first crowd; those that come back do not wait for each other
SNAPSHOT = b"event: snapshot"


class Viewers:
    """All of them. A viewer is its number."""

    def __init__(self, port: int, first: int, asked: list[tuple[str, str]]) -> None:
        self._address = ("127.0.0.1", port)
        self._first = first
        self._asked = asked
        self._epoll = select.epoll()
        self._sockets: dict[int, tuple[int, socket.socket]] = {}  # by file: viewer, socket
        self._opened_at = [0.0] * len(asked)
        self._tails: dict[int, bytes] = {}
        self._failures = [0] * len(asked)
        self._due: list[tuple[float, int]] = []
        self._seeing: set[int] = set()
        self._slowest_s = 0.0
        self._fresh = list(range(len(asked)))
        self._told = False

    def turn(self) -> None:
        """Connect whoever is due, and read what has come."""
        now = time.monotonic()
        while self._fresh and len(self._sockets) - len(self._seeing) < OPENING_AT_ONCE:
            self._connect(self._fresh.pop(), now)
        for _ in range(200):
            if not self._due or self._due[0][0] > now:
                break
            self._connect(heapq.heappop(self._due)[1], now)
        for file, events in self._epoll.poll(0.01, 2000):
            self._read(file, events)
        if len(self._seeing) == len(self._asked) and not self._told:
            self._told = True
            print(f"back {time.monotonic():.3f} {self._slowest_s:.3f}", flush=True)

    def _connect(self, viewer: int, now: float) -> None:
        one = socket.socket()
        one.setblocking(False)
        one.bind((f"127.0.0.{2 + (self._first + viewer) // 9000}", 0))
        self._opened_at[viewer] = now
        try:
            one.connect(self._address)
        except BlockingIOError:
            pass
        except OSError:
            one.close()
            self._again(viewer)
            return
        self._sockets[one.fileno()] = viewer, one
        self._epoll.register(one.fileno(), select.EPOLLOUT)

    def _read(self, file: int, events: int) -> None:
        viewer, one = self._sockets[file]
        try:
            if events & select.EPOLLOUT:
                order_id, token = self._asked[viewer]
                one.sendall(
                    f"GET /track/{order_id}/stream HTTP/1.1\r\nHost: b\r\n"
                    f"Authorization: Bearer {token}\r\n\r\n".encode()
                )
                self._tails[file] = b""
                self._epoll.modify(file, select.EPOLLIN)
                return
            data = one.recv(65536)
        except OSError:
            data = b""
        if data and viewer not in self._seeing:
            text = self._tails[file] + data
            if SNAPSHOT in text:
                self._seeing.add(viewer)
                self._failures[viewer] = 0
                waited_s = time.monotonic() - self._opened_at[viewer]
                self._slowest_s = max(self._slowest_s, waited_s)
                self._tails[file] = b""
            elif text.startswith((b"HTTP/1.1 5", b"HTTP/1.1 4")):
                if not text.startswith((b"HTTP/1.1 503", b"HTTP/1.1 429")):
                    raise SystemExit(text.partition(b"\r\n")[0].decode())
                data = b""
            else:
                self._tails[file] = text
        if not data:
            self._epoll.unregister(file)
            del self._sockets[file]
            one.close()
            if self._told:
                self._told, self._slowest_s = False, 0.0
            self._seeing.discard(viewer)
            self._again(viewer)

    def _again(self, viewer: int) -> None:
        tries = self._failures[viewer]
        self._failures[viewer] += 1
        longest_s = min(AGAIN_S * SLOWER_BY ** max(0, tries - QUICK_TRIES), SLOWEST_S)
        wait_s = longest_s * (0.5 + random.random())
        heapq.heappush(self._due, (time.monotonic() + wait_s, viewer))


def main() -> int:
    """Run until killed."""
    port, first = map(int, sys.argv[1:3])
    asked = [(one, token) for one, token in (line.split() for line in sys.stdin)]
    viewers = Viewers(port, first, asked)
    while True:
        viewers.turn()


if __name__ == "__main__":
    sys.exit(main())
