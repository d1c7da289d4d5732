"""The stores of tracking_api in memory, in place of the database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import msgspec

from doorstep.credentials import DeviceSecrets, token_sha256
from doorstep.errors import (
    BadLink,
    DeviceExists,
    IllegalTransition,
    OfferOpen,
    StoreUnavailable,
    UnknownDriver,
    UnknownOrder,
)
from doorstep.sampling import SamplingPolicy
from doorstep.store.people import Device, StaffMember, StaffSession
from doorstep.store.records import DetailedOrder, Offer, Order, Token
from tests.unit.tracking_api.memory_administration import MemoryAdministration
from tests.unit.tracking_api.memory_customer_page import MemoryCustomerPage
from tests.unit.tracking_api.memory_ends import MemoryEnds
from tests.unit.tracking_api.memory_reports import MemoryReports
from tracking_api.fleet.dispatch_queries import AttentionOrder, AttentionOrders, FoundOrder
from tracking_api.fleet.driver_queries import DeviceSampling, DriverStop, NearDriver, ServiceArea
from tracking_api.history.fixes import HistoricFix
from tracking_api.history.queries import Replay
from tracking_api.orders.decision_queries import CourierChoice, FoundRestaurant, TimelineEntry
from tracking_api.orders.offer_queries import Unassigned
from tracking_api.orders.search import DueRange, OrderKey
from tracking_api.track.customer_queries import CancelledOrder
from tracking_api.track.visibility import (
    Event,
    OrderPoll,
    Position,
    TrackedOrder,
    TrackLink,
)

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
ORDER_ID, OTHER_ID = UUID(int=1), UUID(int=2)  # fixed: names of tests hold them
STAFF = {"Authorization": "Bearer tok-staff"}
CUSTOMER = {"Authorization": "Bearer tok-customer"}
NEW_ORDER = {"restaurant_id": 1, "destination": {"lon_deg": 11.26, "lat_deg": 43.78}}

NO_DETAILS: dict[str, Any] = {
    **dict.fromkeys(("external_id", "customer_phone", "customer_language", "address")),
    **dict.fromkeys(("door_note", "items", "ready_at", "scheduled_for", "promised_from")),
    **dict.fromkeys(("promised_to", "pickup", "failure")),
    "contact_rule": "none",
    "has_pin": False,
}


class MemoryStore(MemoryAdministration, MemoryCustomerPage, MemoryEnds, MemoryReports):
    """Orders ORDER_ID and OTHER_ID; tokens `tok-staff`, `tok-customer` (of ORDER_ID), …"""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = {
            token_sha256("tok-staff"): Token("staff", None, None, "anna", "admin"),
            token_sha256("tok-viewer"): Token("staff", None, None, "vera", "viewer"),
            token_sha256("tok-dispatcher"): Token("staff", None, None, "dario", "dispatcher"),
            token_sha256("tok-integration"): Token("staff", None, None, "shop", "integration"),
            token_sha256("tok-customer"): Token("customer", None, ORDER_ID),
            token_sha256("tok-other"): Token("customer", None, OTHER_ID),
            token_sha256("tok-d1"): Token("driver", "d1", None),
        }
        self.orders = [make_order(uuid4(), NOON + timedelta(seconds=n)) for n in range(5)]
        self.commands: list[tuple[UUID, str, str, str | None]] = []
        self.actor_ids: list[str] = []
        self.audit: list[tuple[str, str, str | None, Any]] = []
        self.people_changes: list[tuple[str, str, str]] = []
        self.created: list[dict[str, Any]] = []
        self.sampling = SamplingPolicy()
        self.watched: list[TrackLink] = []
        self.searched: list[tuple[str | None, DueRange | None]] = []
        # driver_id, open orders, whether they have the order, place
        self.couriers: list[tuple[str, int, bool, tuple[float, float]]] = []
        self.returning: set[str] = set()  # of them
        self.look_ups = 0
        self.away = False

    async def find_token(self, sha256: bytes) -> Token | None:
        if self.away:
            raise StoreUnavailable
        self.look_ups += 1
        return self.tokens.get(sha256)

    async def find_tokens(self, sha256s: Sequence[bytes]) -> dict[bytes, Token]:
        found = [(one, await self.find_token(one)) for one in sha256s]
        return {one: token for one, token in found if token is not None}

    async def create_order(self, *, token_sha256: bytes, **values: Any) -> Order:
        is_new = not any(values == one and one["idempotency_key"] for one in self.created)
        if is_new:
            self.created.append(values)
            self.tokens[token_sha256] = Token("customer", None, ORDER_ID)
        return replace(make_order(ORDER_ID), created=is_new)

    async def command_order(
        self,
        order_id: UUID,
        command: str,
        name: str,
        driver_id: str | None,
        idempotency_key: str | None,
    ) -> Order:
        if order_id != ORDER_ID:
            raise UnknownOrder
        self.commands.append((order_id, command, "staff", driver_id))
        self.actor_ids.append(name)
        if command == "reassign":
            raise IllegalTransition(str(order_id), command, "delivered", [])
        return make_order(order_id)

    async def assign_order(
        self,
        order_id: UUID,
        command: str,
        name: str,
        driver_id: str | None,
        stop_no: int | None,
        idempotency_key: str | None,
    ) -> Order:
        return await self.command_order(order_id, command, name, driver_id, idempotency_key)

    async def replace_customer_token(self, order_id: UUID, sha256: bytes) -> None:
        await self.revoke_customer_tokens(order_id)
        self.tokens[sha256] = Token("customer", None, order_id)

    async def revoke_customer_tokens(self, order_id: UUID) -> None:
        self.tokens = {k: v for k, v in self.tokens.items() if v.order_id != order_id}

    async def record_audit(self, who: str, action: str, subject: str | None, detail: Any) -> None:
        self.audit.append((who, action, subject, detail))

    async def list_staff(self) -> list[StaffMember]:
        return [make_member("anna")]

    async def change_staff(self, name: str, change: str, *, who: str, **values: Any) -> StaffMember:
        self.people_changes.append((name, change, who))
        return make_member(name)

    async def change_device(
        self,
        kind: str,
        device_id: str,
        change: str,
        who: str,
        secrets: DeviceSecrets | None = None,
    ) -> Device:
        if change == "add" and device_id == "d1":
            raise DeviceExists
        if change != "add" and device_id != "d1":
            raise UnknownDriver
        self.people_changes.append((device_id, change, who))
        return Device(device_id, kind, 1, secrets is None, NOON, NOON, None, None)

    async def list_devices(self, kind: str) -> list[Device]:
        return [Device("d1", kind, 0, True, NOON, None, None, None)]

    async def open_session(
        self, token_sha256: bytes, session_sha256: bytes, lifetime_s: float
    ) -> StaffSession | None:
        holder = self.tokens.get(token_sha256)
        if holder is None or not holder.is_staff():
            return None
        self.tokens[session_sha256] = holder
        expires_at = datetime.now(UTC) + timedelta(seconds=lifetime_s)
        return StaffSession(holder.actor_id, holder.staff_role or "", expires_at)

    async def close_session(self, session_sha256: bytes) -> None:
        self.tokens.pop(session_sha256, None)

    async def set_sampling(self, driver_id: str, policy: SamplingPolicy) -> None:
        if driver_id != "d1":
            raise UnknownDriver
        self.sampling = policy

    async def unpin_sampling(self, driver_id: str) -> None:
        if driver_id != "d1":
            raise UnknownDriver
        self.sampling = SamplingPolicy()

    async def report_watched(self, links: Sequence[TrackLink]) -> None:
        self.watched += links

    async def read_sampling(self, driver_id: str) -> DeviceSampling:
        if driver_id != "d1":
            raise UnknownDriver
        return DeviceSampling(self.sampling, NOON, is_delivered=False)

    def _is_good(self, link: TrackLink) -> bool:
        if self.away:
            raise StoreUnavailable
        token = self.tokens.get(link.token_sha256 or b"")
        is_customers = token is not None and token.order_id == link.order_id
        return (link.is_staff or is_customers) and link.order_id in (ORDER_ID, OTHER_ID)

    async def find_good_links(self, links: Sequence[TrackLink]) -> dict[TrackLink, bool]:
        return {link: True for link in links if self._is_good(link)}

    async def read_tracks(
        self, links: Sequence[TrackLink], held: object = None
    ) -> dict[TrackLink, TrackedOrder]:
        return {link: self._track(link.order_id) for link in links if self._is_good(link)}

    def _track(self, order_id: UUID) -> TrackedOrder:
        return TrackedOrder(
            now=NOON,
            order_id=order_id,
            state="picked_up",
            assignment_no=1,
            order_seq=4,
            restaurant_name="Da Mario",
            restaurant=(11.25, 43.77),
            destination=(11.26, 43.78),
            dwell_min_s=30,
            position=Position(NOON - timedelta(seconds=7), NOON, 11.255, 43.775, 5.0, 4.0, 90.0),
            assigned_at=NOON - timedelta(minutes=5),
            driver_id="d1",
            events=[Event(1, "created", "staff", NOON - timedelta(minutes=9))],
        )

    async def read_polls(self, links: Sequence[TrackLink]) -> dict[TrackLink, OrderPoll]:
        found = await self.read_tracks(links)
        return {
            link: OrderPoll(one.now, one.order_id, one.order_seq, one.driver_id, one.position)
            for link, one in found.items()
        }

    async def read_order_history(
        self, order_id: UUID, from_at: datetime | None, to_at: datetime | None, *, limit: int
    ) -> list[Position] | None:
        if order_id not in (ORDER_ID, OTHER_ID):
            return None
        start = NOON - timedelta(minutes=1)
        return [Position(start, start, 11.255, 43.775), Position(NOON, NOON, 11.256, 43.776)]

    async def read_link_history(
        self, link: TrackLink, from_at: datetime | None, to_at: datetime | None, *, limit: int
    ) -> list[Position]:
        found = await self.read_order_history(link.order_id, from_at, to_at, limit=limit)
        if found is None or not self._is_good(link):
            raise BadLink
        return found

    async def cancel_by_link(self, link: TrackLink, idempotency_key: str | None) -> CancelledOrder:
        if not self._is_good(link):
            raise BadLink
        self.commands.append((link.order_id, "cancel", "customer", None))
        return CancelledOrder(link.order_id, "created", 1)

    async def list_orders(
        self,
        states: Sequence[str],
        limit: int,
        after: OrderKey | None,
        text: str | None = None,
        due: DueRange | None = None,
    ) -> list[DetailedOrder]:
        self.searched.append((text, due))
        found = sorted(self.orders, key=lambda one: (one.created_at, one.order_id), reverse=True)
        if after:
            found = [one for one in found if (one.created_at, one.order_id) < after]
        return [DetailedOrder(one, NO_DETAILS) for one in found[:limit]]

    async def read_order(self, order_id: UUID) -> DetailedOrder:
        if order_id != ORDER_ID:
            raise UnknownOrder
        return DetailedOrder(make_order(order_id), {**NO_DETAILS, "assignments": []})

    async def offer_order(
        self, order_id: UUID, driver_id: str | None, name: str, idempotency_key: str | None
    ) -> Offer:
        if order_id != ORDER_ID:
            raise OfferOpen("this order is offered to d1")
        self.actor_ids.append(name)
        return Offer(order_id, driver_id or "d1", NOON, NOON + timedelta(seconds=45), None, None)

    async def read_offers(self, order_id: UUID) -> list[Offer]:
        return [Offer(order_id, "d1", NOON, NOON, NOON, "expired")]

    async def read_unassigned(self, limit: int) -> list[Unassigned]:
        return [Unassigned(ORDER_ID, NOON, 2)]

    async def read_driver(self, driver_id: str) -> Any:
        raise UnknownDriver

    async def read_stops(self, driver_id: str) -> list[DriverStop]:
        return []

    async def set_stops(self, driver_id: str, order_ids: Sequence[UUID], name: str) -> None:
        raise UnknownDriver

    async def read_nearest(
        self, lon_deg: float, lat_deg: float, limit: int, *, with_orders: bool
    ) -> tuple[datetime, list[NearDriver]]:
        position = Position(NOON, NOON, lon_deg, lat_deg)
        free, busy = NearDriver("d1", 120.04, position, 0), NearDriver("d2", 130.0, position, 2)
        return NOON, [free, busy] if with_orders else [free]

    async def read_positions(self, since_ms: int | None) -> tuple[int, msgspec.Raw]:
        at_ms, rows = await self.read_fleet_page("", 1)
        return at_ms, msgspec.Raw(msgspec.json.encode(rows))

    async def read_fleet_page(self, after: str, limit: int) -> tuple[int, list[list[Any]]]:
        return 1, [["d1", "available", 11.25, 43.77, 0, 0, None, None, None, None, None, "on_duty"]]

    async def read_fleet_drivers(self, driver_ids: Sequence[str]) -> tuple[int, list[list[Any]]]:
        return await self.read_fleet_page("", 1)

    async def read_removed_drivers(self, since_ms: int) -> list[str]:
        return []

    async def read_attention_orders(self, limit: int) -> AttentionOrders:
        found = [AttentionOrder(self.orders[0], NOON, "waiting", None, NOON)]
        return AttentionOrders(NOON, {"waiting": 1}, found)

    async def read_staff_commands(self) -> dict[str, list[str]]:
        return {}

    async def search_drivers(self, text: str, limit: int) -> list[Any]:
        return []

    async def search_orders(self, text: str, limit: int) -> list[FoundOrder]:
        return [FoundOrder(ORDER_ID, "created", None)]

    async def read_driver_history(
        self, driver_id: str, from_at: datetime, to_at: datetime, limit: int, after: Any = None
    ) -> list[HistoricFix]:
        return [] if after else [HistoricFix(NOON, NOON, 11.25, 43.77, boot="", seq=1)]

    async def read_replay(self, box: Any, from_at: datetime, to_at: datetime) -> Replay:
        return Replay(60.0, ["d1"], False, [("d1", NOON, 11.25, 43.77)])

    async def read_couriers(self, order_id: UUID, limit: int) -> list[CourierChoice]:
        if order_id != ORDER_ID:
            raise UnknownOrder
        return [
            CourierChoice(
                NOON, driver_id, driver_id, None, 100.0, 0.5, open_orders, is_current,
                11.25, 43.77, None, *place, NOON, NOON, None, driver_id in self.returning,
            )
            for driver_id, open_orders, is_current, place in self.couriers
        ]  # fmt: skip

    async def read_timeline(self, order_id: UUID) -> list[TimelineEntry]:
        if order_id != ORDER_ID:
            raise UnknownOrder
        who = "staff", "dario", None, None, None
        return [TimelineEntry(NOON, NOON, "command", "create", *who)]

    async def read_driver_states(
        self, driver_ids: Sequence[str], from_at: datetime, to_at: datetime
    ) -> list[tuple[str, int, str]]:
        return [(driver_ids[0], 0, "available")]

    async def find_restaurants(
        self, text: str, city: str | None, limit: int
    ) -> list[FoundRestaurant]:
        return [FoundRestaurant(1, "Da Mario", None, 11.25, 43.77)]

    async def read_tile(self, z: int, x: int, y: int, filters: Any, limit: int) -> bytes:
        return b""

    async def read_service_areas(self) -> list[ServiceArea]:
        if self.away:
            raise StoreUnavailable
        return [ServiceArea("suva", 178.3, -18.3, -179.9, -18.0, "Pacific/Fiji")]

    async def is_available(self) -> bool:
        return not self.away


def make_member(name: str) -> StaffMember:
    return StaffMember(name, "admin", NOON, None, None, NOON)


def make_order(order_id: UUID, created_at: datetime = NOON) -> Order:
    return Order(order_id, "created", 0, None, 1, 1, 11.26, 43.78, None, 1, created_at, None, None)
