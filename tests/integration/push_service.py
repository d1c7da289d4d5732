"""The part of tracking_api that sends web push, as a process, and a push service on loopback.

It replaces tracking_api's own process, whose push services need public addresses. Run as a program,
it sends until it is killed.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

import http_ece

from doorstep.outbound.destination import DestinationRules
from doorstep.store.pool import open_pool
from tests.database import Database
from tests.unit.tracking_api.test_push import browser
from tracking_api.push.notifier import Recipient
from tracking_api.push.queries import PushQueries
from tracking_api.push.web_push import VapidKey, WebPushNotifier
from tracking_api.push.worker import PushWorker

LEASE_S = 3.0
TIMEOUT_S = 2.0  # below the lease


class Message(NamedTuple):
    """What a push service was sent. `path` names the subscription."""

    path: str
    topic: str
    tag: str
    title: str


class PushService:
    """Keeps what it is sent for its browser. It answers while `may_answer` is set."""

    def __init__(self) -> None:
        self._private, self._secret, self._recipient = browser()
        self.messages: list[Message] = []
        self.may_answer = threading.Event()
        self.may_answer.set()
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                service.keep(self.path, self.headers["topic"], body)
                service.may_answer.wait()
                self.send_response(201)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None: ...

        class Server(ThreadingHTTPServer):
            request_queue_size = 100

            def handle_error(self, *_: object) -> None:
                """Say nothing: the sender may be killed."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def keep(self, path: str, topic: str, body: bytes) -> None:
        payload = json.loads(
            http_ece.decrypt(
                body, private_key=self._private, auth_secret=self._secret, version="aes128gcm"
            )
        )
        self.messages.append(Message(path, topic, payload["tag"], payload["title"]))

    def recipient(self, name: str) -> Recipient:
        """A subscription to this service."""
        url = f"http://127.0.0.1:{self._server.server_address[1]}/{name}"
        return self._recipient._replace(endpoint=url)

    def shown(self) -> set[tuple[str, str]]:
        """What the browsers show: of the messages with one tag, one notification."""
        return {(one.path, one.tag) for one in self.messages}

    def close(self) -> None:
        self.may_answer.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def sending_process(database: Database) -> Iterator[subprocess.Popen[bytes]]:
    """Send what is due, as tracking_api does; kill -9 at the end."""
    environment = {**os.environ, "DATABASE_URL": database.url("tracking_api")}
    process = subprocess.Popen([sys.executable, "-m", __name__], env=environment)
    try:
        yield process
    finally:
        process.kill()
        process.wait(30)


async def _send() -> None:
    pool = await open_pool(os.environ["DATABASE_URL"], 2, autocommit=True)
    rules = DestinationRules(allow_loopback=True)
    notifier = WebPushNotifier(VapidKey("secret"), "mailto:a@example.org", rules, TIMEOUT_S)
    await PushWorker(PushQueries(pool), notifier, lease_s=LEASE_S, sweep_s=0.5).run()


if __name__ == "__main__":
    asyncio.run(_send())
