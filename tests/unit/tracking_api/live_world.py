"""A small world for the live tests: orders, drivers and tokens in memory.

The seam is `tracking_api.stores.Stores`, as far as the streams use it. Time stands still unless a
test moves it. Each fix has a place of its own, so that a frame tells whose fix it shows.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import uvicorn

from doorstep.credentials import token_sha256
from doorstep.errors import StoreUnavailable
from doorstep.http.guarded_protocol import ConnectionLimits, guarded
from doorstep.store.records import Token
from tracking_api.app import build_app
from tracking_api.live.detachable_protocol import DetachableProtocol
from tracking_api.stores import Stores
from tracking_api.track.visibility import (
    Event,
    Notice,
    Notices,
    OrderPoll,
    OtherDelivery,
    Position,
    TrackedOrder,
    TrackLink,
)

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
PUBLIC_URL = "https://doorstep.test"


@dataclass(frozen=True, slots=True)
class Window:
    """[assigned_at, ended_at) of one assignment."""

    assigned_at: datetime
    ended_at: datetime | None

    def is_open(self, now: datetime) -> bool:
        return self.assigned_at <= now and (self.ended_at is None or now < self.ended_at)


@dataclass(slots=True)
class Stint:
    """One assignment."""

    driver_id: str
    window: Window


@dataclass(slots=True)
class WorldOrder:
    """One order as the database has it."""

    order_id: UUID
    state: str = "created"
    assignment_no: int = 0
    stints: dict[int, Stint] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)
    late_after: datetime | None = None

    @property
    def order_seq(self) -> int:
        return len(self.events) + len(self.notices)

    @property
    def current(self) -> Stint | None:
        return self.stints.get(self.assignment_no)


class World:
    """Orders, their drivers' newest fixes, and tokens `tok-…`."""

    def __init__(self) -> None:
        self.now = NOON
        self.orders: dict[UUID, WorldOrder] = {}
        self.newest: dict[str, Position] = {}
        self.driver_of_place: dict[tuple[float, float], str] = {}
        self.tokens = {token_sha256("tok-staff"): Token("staff", None, None, "anna", "admin")}
        self.away = False
        self.reads = 0
        self.polls = 0
        self.fleet_reads = 0
        self.fleet_named: list[list[str]] = []
        self.driver_states: dict[str, str] = {}
        self.driver_duties: dict[str, str] = {}
        self.removed: set[str] = set()
        self.carried: dict[str, str] = {}  # orders, by driver
        self.waits: dict[UUID, OtherDelivery] = {}  # whose stop is not next
        self.watched: list[TrackLink] = []

    async def record_audit(self, *entry: object) -> None:
        """Accept what staff reads."""

    async def report_watched(self, links: Sequence[TrackLink]) -> None:
        self.watched += links

    # -- what happens ------------------------------------------------------------------------

    def create(self, *states: str, driver_id: str | None = None) -> UUID:
        """Make an order and move it on; its customer's token is `tok-{order_id}`."""
        order = WorldOrder(uuid4())
        self.orders[order.order_id] = order
        self.tokens[token_sha256(f"tok-{order.order_id}")] = Token("customer", None, order.order_id)
        self._event(order, "created")
        if driver_id:
            self.assign(order.order_id, driver_id)
        for state in states:
            self.move(order.order_id, state)
        return order.order_id

    def assign(self, order_id: UUID, driver_id: str) -> None:
        """Give the order to a driver, taking it from its present driver."""
        order = self.orders[order_id]
        self._end(order)
        self.tick()
        order.assignment_no += 1
        order.stints[order.assignment_no] = Stint(driver_id, Window(self.now, None))
        self._event(order, "assigned")
        self.tick()

    def decline(self, order_id: UUID) -> None:
        """The driver gives the order back."""
        order = self.orders[order_id]
        self._end(order)
        order.assignment_no += 1
        self._event(order, "confirmed")

    def move(self, order_id: UUID, state: str) -> None:
        """Move the order on, or end it."""
        order = self.orders[order_id]
        if state in ("delivered", "cancelled", "failed"):
            self._end(order)
        self._event(order, state)

    def fix(self, driver_id: str, ago_s: float = 0.0) -> Position:
        """Commit a driver's fix, at a place of its own. An older one changes nothing."""
        fix_at = self.now - timedelta(seconds=ago_s)
        place = (11.0 + len(self.driver_of_place) * 1e-5, 43.77)
        self.driver_of_place[place] = driver_id
        spot = Position(fix_at, self.now, *place, 5.0, 4.0, 90.0)
        known = self.newest.get(driver_id)
        if known is None or fix_at > known.fix_at:
            self.newest[driver_id] = spot
        return spot

    def tick(self, seconds: float = 0.001) -> None:
        """Let time pass."""
        self.now += timedelta(seconds=seconds)

    def _event(self, order: WorldOrder, state: str) -> None:
        order.state = state
        number = order.order_seq + 1
        order.events.append(Event(number, state, "staff", self.now, order.assignment_no))

    def notice(self, order_id: UUID, kind: str) -> None:
        """Decide that an order is late or its courier nearby."""
        order = self.orders[order_id]
        order.notices.append(Notice(order.order_seq + 1, kind, self.now))
        if kind == "late":
            order.late_after = self.now

    def is_assigned(self, order_id: UUID) -> bool:
        """Whether a driver has the order now."""
        stint = self.orders[order_id].current
        return stint is not None and stint.window.ended_at is None

    def _end(self, order: WorldOrder) -> None:
        self.waits.pop(order.order_id, None)
        stint = order.current
        if stint and stint.window.ended_at is None:
            stint.window = Window(stint.window.assigned_at, self.now)

    # -- what is asked -----------------------------------------------------------------------

    async def find_token(self, sha256: bytes) -> Token | None:
        self._need()
        return self.tokens.get(sha256)

    async def find_tokens(self, sha256s: Sequence[bytes]) -> dict[bytes, Token]:
        self._need()
        return {one: self.tokens[one] for one in sha256s if one in self.tokens}

    async def find_good_links(self, links: Sequence[TrackLink]) -> dict[TrackLink, bool]:
        self._need()
        return {link: True for link in links if self._is_good(link)}

    async def read_tracks(
        self, links: Sequence[TrackLink], held: object = None
    ) -> dict[TrackLink, TrackedOrder]:
        self._need()
        found = [(link, await self._track(link)) for link in links]
        return {link: one for link, one in found if one is not None}

    async def _track(self, link: TrackLink) -> TrackedOrder | None:
        self.reads += 1
        if not self._is_good(link):
            return None
        order = self.orders[link.order_id]
        shown = self._shown(order)
        return TrackedOrder(
            now=self.now,
            order_id=order.order_id,
            state=order.state,
            assignment_no=order.assignment_no,
            order_seq=order.order_seq,
            restaurant_name="Da Mario",
            restaurant=(11.25, 43.77),
            destination=(11.26, 43.78),
            dwell_min_s=30,
            position=self._position(shown),
            assigned_at=shown.window.assigned_at if shown else None,
            driver_id=shown.driver_id if shown else None,
            events=list(order.events),
            other_delivery=self.waits.get(order.order_id),
            notices=Notices(list(order.notices), order.late_after),
        )

    async def read_polls(self, links: Sequence[TrackLink]) -> dict[TrackLink, OrderPoll]:
        self._need()
        self.polls += 1
        return {link: self._poll(link) for link in links if self._is_good(link)}

    def _poll(self, link: TrackLink) -> OrderPoll:
        order = self.orders[link.order_id]
        shown = self._shown(order)
        driver_id = shown.driver_id if shown else None
        events = order.order_seq
        return OrderPoll(self.now, link.order_id, events, driver_id, self._position(shown))

    def _is_good(self, link: TrackLink) -> bool:
        if link.token_sha256 is not None:
            token = self.tokens.get(link.token_sha256)
            if token is None or token.order_id != link.order_id:
                return False
        return link.order_id in self.orders

    def _shown(self, order: WorldOrder) -> Stint | None:
        stint = order.current
        if order.order_id in self.waits:
            return None
        return stint if stint and stint.window.is_open(self.now) else None

    def _position(self, shown: Stint | None) -> Position | None:
        newest = self.newest.get(shown.driver_id) if shown else None
        if shown is None or newest is None or newest.fix_at < shown.window.assigned_at:
            return None
        return newest

    async def read_fleet_page(self, after: str, limit: int) -> tuple[int, list[list[Any]]]:
        self._need()
        self.fleet_reads += 1
        rows = sorted(row for row in self._rows() if row[0] > after)
        return ms_of(self.now), rows[:limit]

    async def read_removed_drivers(self, since_ms: int) -> list[str]:
        self._need()
        return sorted(self.removed)

    async def read_fleet_drivers(self, driver_ids: Sequence[str]) -> tuple[int, list[list[Any]]]:
        self._need()
        self.fleet_named.append(sorted(driver_ids))
        return ms_of(self.now), [row for row in self._rows() if row[0] in driver_ids]

    def _rows(self) -> list[list[Any]]:
        return [
            [
                driver_id,
                self.driver_states.get(driver_id, "available"),
                spot.lon_deg,
                spot.lat_deg,
                ms_of(spot.fix_at),
                ms_of(spot.received_at),
                *[None] * 4,
                self.carried.get(driver_id),
                self.driver_duties.get(driver_id, "on_duty"),
            ]
            for driver_id, spot in self.newest.items()
            if driver_id not in self.removed
        ]

    async def is_available(self) -> bool:
        return not self.away

    def _need(self) -> None:
        if self.away:
            raise StoreUnavailable


def ms_of(instant: datetime) -> int:
    """Epoch milliseconds."""
    return round(instant.timestamp() * 1000)


@dataclass(frozen=True, slots=True)
class Shown:
    """One frame as a viewer reads it."""

    kind: str
    data: dict[str, Any]
    event_id: int | None

    @property
    def place(self) -> tuple[float, float] | None:
        """Where the driver is said to be."""
        position = self.data.get("position")
        return tuple(position["geometry"]["coordinates"]) if position else None


def frames_of(text: str) -> Iterator[Shown]:
    """Read a text/event-stream."""
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line)
        if "event" in fields:
            event_id = int(fields["id"]) if "id" in fields else None
            yield Shown(fields["event"], json.loads(fields["data"]), event_id)


@asynccontextmanager
async def serving(world: World) -> AsyncIterator[tuple[str, Any]]:
    """Serve tracking_api over a world, without Kafka: its address and its application."""
    async with serving_stores(Stores.backed_by(world)) as served:
        yield served


@asynccontextmanager
async def serving_stores(stores: Stores) -> AsyncIterator[tuple[str, Any]]:
    """Serve tracking_api over these stores, without Kafka: its address and its application."""
    app = build_app(stores, PUBLIC_URL)
    config = uvicorn.Config(
        app,
        host="127.0.0.1",
        port=0,
        http=guarded(ConnectionLimits(100_000, 100_000), DetachableProtocol),
        ws="none",
        log_config=None,
        loop="none",
    )
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    task = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}", app
    finally:
        server.should_exit = True
        await task
