"""The servers of `bench.fanout`: tracking_api's streams, and the variants compared with them.

    python -m bench.fanout_server ours|naive|bare PORT

GET /control/push?rounds=N moves every order N times; GET /control/cost returns the process's CPU
time and memory. The database is replaced by a dictionary, so that only the fan-out is measured.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import uvicorn
from fastapi import FastAPI
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from doorstep.http.guarded_protocol import ConnectionLimits, guarded
from doorstep.store.records import Token
from tracking_api.app import build_app
from tracking_api.live.detachable_protocol import DetachableProtocol, detach
from tracking_api.live.frames import position_frame
from tracking_api.live.service import Live
from tracking_api.stores import Stores
from tracking_api.track.visibility import Event, OrderPoll, Position, TrackedOrder, TrackLink

PAUSE_S = 0.15  # between two rounds: the hub polls every 0.1 s at most


def order_id_of(number: int) -> UUID:
    """The id of the n-th order."""
    return UUID(int=number + 1)


class DictStore:
    """Orders under way, each with its own driver: the seam is `tracking_api.stores.Stores`."""

    def __init__(self) -> None:
        self.assigned_at = datetime.now(UTC)
        self.round = 0
        self.newest = self._position()

    def move(self) -> None:
        """Move every driver."""
        self.round += 1
        self.newest = self._position()

    def _position(self) -> Position:
        now = datetime.now(UTC)
        return Position(now, now, 11.25 + self.round * 1e-5, 43.77, 5.0, 4.0, 90.0)

    async def record_audit(self, *entry: object) -> None:
        """Accept what staff reads."""

    async def find_token(self, _: bytes) -> Token | None:
        return Token("staff", None, None, "anna", "admin")

    async def find_tokens(self, sha256s: Sequence[bytes]) -> dict[bytes, Token]:
        return dict.fromkeys(sha256s, Token("staff", None, None, "anna", "admin"))

    async def read_tracks(
        self,
        links: Sequence[TrackLink],
        held: object = None,  # noqa: ARG002 - as the store's
    ) -> dict[TrackLink, TrackedOrder]:
        return {link: self._track(link.order_id) for link in links}

    def _track(self, order_id: UUID) -> TrackedOrder:
        now = datetime.now(UTC)
        return TrackedOrder(
            now=now,
            order_id=order_id,
            state="picked_up",
            assignment_no=1,
            order_seq=1,
            restaurant_name="Da Mario",
            restaurant=(11.25, 43.77),
            destination=(11.26, 43.78),
            dwell_min_s=30,
            position=self.newest,
            assigned_at=self.assigned_at,
            driver_id=str(order_id),
            events=[Event(1, "picked_up", "driver", now, 1)],
        )

    async def read_polls(self, links: Sequence[TrackLink]) -> dict[TrackLink, OrderPoll]:
        now = datetime.now(UTC)
        return {
            link: OrderPoll(now, link.order_id, 1, str(link.order_id), self.newest)
            for link in links
        }

    async def is_available(self) -> bool:
        return True


def ours() -> FastAPI:
    """tracking_api, with all its middleware."""
    store = DictStore()
    app = build_app(Stores.backed_by(store, "staff"), "http://bench.test")
    live: Live = app.state.context.live

    @app.get("/control/push")
    async def push(rounds: int) -> None:
        for _ in range(rounds):
            store.move()
            live.staff.drivers_moved(list(live.staff.watched_drivers))
            await asyncio.sleep(PAUSE_S)

    add_cost(app)
    return app


def naive() -> FastAPI:
    """The simple variant: a queue and a generator per viewer."""
    app = FastAPI()
    queues: set[asyncio.Queue[bytes]] = set()

    @app.get("/track/{_}/stream")
    async def stream(_: str) -> StreamingResponse:
        async def frames() -> AsyncIterator[bytes]:
            queue: asyncio.Queue[bytes] = asyncio.Queue()
            queues.add(queue)
            try:
                yield b"event: snapshot\ndata: {}\n\n"
                while True:
                    yield await queue.get()
            finally:
                queues.discard(queue)

        return StreamingResponse(frames(), media_type="text/event-stream")

    @app.get("/control/push")
    async def push(rounds: int) -> None:
        for n in range(rounds):
            chunk = chunk_of(n).partition(b"\r\n")[2][:-2]  # encoded once
            for queue in queues:
                queue.put_nowait(chunk)
            await asyncio.sleep(PAUSE_S)

    add_cost(app)
    return app


class WriteOnly(asyncio.Protocol):
    """A connection that is only written to."""

    release: Callable[[], None]


class DetachedResponse(Response):
    """A response that detaches its connection from the server, for writing only."""

    def __init__(self, files: list[int]) -> None:
        super().__init__(media_type="text/event-stream")
        self._files = files

    async def __call__(self, scope: Scope, _: Receive, __: Send) -> None:
        transport = detach(scope, WriteOnly())
        transport.write(b"HTTP/1.1 200 OK\r\n\r\nevent: snapshot\n\n")
        self._files.append(transport.get_extra_info("socket").fileno())


def bare() -> FastAPI:
    """The lower bound: one write(2) per viewer."""
    app = FastAPI()
    files: list[int] = []

    @app.get("/track/{_}/stream")
    async def stream(_: str) -> Response:
        return DetachedResponse(files)

    @app.get("/control/push")
    async def push(rounds: int) -> None:
        for n in range(rounds):
            chunk = chunk_of(n)
            for file in files:
                os.write(file, chunk)
            await asyncio.sleep(PAUSE_S)

    add_cost(app)
    return app


def chunk_of(number: int) -> bytes:
    """A position frame in tracking_api's encoding."""
    now = datetime.now(UTC)
    position = Position(
        now, now - timedelta(seconds=1), 11.25 + number * 1e-5, 43.77, 5.0, 4.0, 90.0
    )
    return position_frame(position, now, None).sse


def add_cost(app: FastAPI) -> None:
    """/control/cost: CPU seconds (user and system) and resident bytes of this process."""

    @app.get("/control/cost")
    async def cost() -> dict[str, float]:
        return {"cpu_s": time.process_time(), "rss_bytes": resident_bytes()}


def resident_bytes() -> int:
    """Resident memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> int:
    """Serve until killed."""
    kind, port = sys.argv[1], int(sys.argv[2])
    protocol = guarded(ConnectionLimits(100_000, 100_000), DetachableProtocol)
    config = uvicorn.Config(
        {"ours": ours, "naive": naive, "bare": bare}[kind](),
        host="127.0.0.1",
        port=port,
        loop="uvloop",
        http="httptools" if kind == "naive" else protocol,  # type: ignore[arg-type]
        ws="none",
        backlog=4096,
        log_level="warning",
    )
    uvicorn.Server(config).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
