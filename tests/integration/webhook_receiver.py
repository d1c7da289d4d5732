"""A receiver of webhooks that loses, delays, doubles and reorders, and the service itself."""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.database import Database

Fate = str  # ok, delayed, lost, refused, doubled, overtaken


class Receiver:
    """An HTTP server on loopback. `fates` decides about each request, in the order of arrival.

    ok, delayed: recorded and answered. lost: the connection ends before the message is recorded.
    refused: 500, not recorded. doubled: recorded, and the connection ends without an answer.
    overtaken: recorded after `overtaken_s`, when its sender has long timed out and tried again.
    """

    def __init__(
        self,
        fates: Callable[[], Fate] = lambda: "ok",
        delay_s: float = 0.15,
        overtaken_s: float = 3.0,
    ) -> None:
        self.recorded: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.requests = 0
        self.held = 0  # requests that are not recorded yet
        self._fates = fates
        self._pauses_s = {"delayed": delay_s, "overtaken": overtaken_s}
        self._lock = threading.Lock()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.handle(self, body)

            def log_message(self, format: str, *args: object) -> None: ...

        class Server(ThreadingHTTPServer):
            def handle_error(self, *_: object) -> None:
                """Say nothing: the sender may be killed."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/hook?of=test"

    def handle(self, request: BaseHTTPRequestHandler, body: bytes) -> None:
        with self._lock:
            fate = self._fates()
            self.requests += 1
            self.held += 1
        time.sleep(self._pauses_s.get(fate, 0.0))
        with self._lock:
            self.held -= 1
            if fate not in ("lost", "refused"):
                headers = {name.lower(): value for name, value in request.headers.items()}
                self.headers.append(headers)
                self.recorded.append({"id": headers["webhook-id"], **json.loads(body)})
        if fate in ("lost", "doubled"):
            request.close_connection = True
            request.connection.shutdown(socket.SHUT_RDWR)
            return
        request.send_response(500 if fate == "refused" else 204)
        request.send_header("content-length", "0")
        request.end_headers()

    def distinct(self) -> list[dict[str, Any]]:
        """The recorded events, each where it came first."""
        with self._lock:
            found = {one["id"]: one for one in reversed(self.recorded)}
            return [one for n, one in enumerate(self.recorded) if found[one["id"]] is one]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def fates(seed: int, **weights: float) -> Callable[[], Fate]:
    """Draw fates by their weights; the rest is ok."""
    draw = random.Random(seed)
    names = [*weights, "ok"]
    shares = [*weights.values(), 1 - sum(weights.values())]
    return lambda: draw.choices(names, shares)[0]


@contextmanager
def webhooks_service(database: Database, **settings: str) -> Iterator[subprocess.Popen[bytes]]:
    """The real process, with short pauses; loopback is allowed."""
    environment = {
        **os.environ,
        "DATABASE_URL": database.url("webhooks"),
        "WEBHOOKS_BIND": "127.0.0.1:0",
        "WEBHOOK_ALLOW_LOOPBACK": "true",
        "WEBHOOK_FIRST_PAUSE_S": "0.05",
        "WEBHOOK_TIMEOUT_S": "2",
        **settings,
    }
    process = subprocess.Popen([sys.executable, "-m", "webhooks"], env=environment)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)
