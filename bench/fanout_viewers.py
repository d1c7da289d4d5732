"""Viewers for `bench.fanout`: many sockets in one process, which read and count.

    python -m bench.fanout_viewers PORT VIEWERS ORDERS FIRST

Prints `ready` when each viewer has its snapshot, and `done N` when all have N positions.
"""

from __future__ import annotations

import select
import socket
import sys

from bench.fanout_server import order_id_of

WAVE = 100  # connections at once: the listener's backlog
MARKER = b"event: position"
SNAPSHOT = b"event: snapshot"


def main() -> int:
    """Connect, then read until killed."""
    port, viewers, orders, first = map(int, sys.argv[1:5])
    poll = select.epoll()
    sockets: dict[int, socket.socket] = {}
    tails: dict[int, bytes] = {}
    ready = positions = next_round = 0
    connected = 0
    while True:
        while connected < viewers and connected - ready < WAVE:
            number = first + connected
            one = socket.create_connection(
                ("127.0.0.1", port), source_address=(f"127.0.0.{2 + number // 9000}", 0)
            )
            path = f"/track/{order_id_of(number % orders)}/stream"
            one.sendall(
                f"GET {path} HTTP/1.1\r\nHost: b\r\nAuthorization: Bearer b\r\n\r\n".encode()
            )
            one.setblocking(False)
            sockets[one.fileno()] = one
            tails[one.fileno()] = b""
            poll.register(one, select.EPOLLIN)
            connected += 1
        for number, _ in poll.poll():
            data = sockets[number].recv(65536)
            if not data:
                sys.stdout.write("lost\n")
                return 1
            text = tails[number] + data
            ready += text.count(SNAPSHOT)
            positions += text.count(MARKER)
            tails[number] = data[-len(MARKER) + 1 :]
        if ready == viewers and next_round == 0:
            next_round = 1
            sys.stdout.write("ready\n")
        while next_round and positions >= next_round * viewers:
            sys.stdout.write(f"done {next_round}\n")
            next_round += 1
        sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
