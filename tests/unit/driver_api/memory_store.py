"""The store of driver_api in memory, in place of the database, and what its tests send."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx

from doorstep.credentials import PhoneSecret, token_sha256
from doorstep.errors import (
    IllegalTransition,
    OfferClosed,
    StoreUnavailable,
    TooManyRequests,
    UnknownDriver,
    UnknownOrder,
)
from doorstep.fix import Fix
from doorstep.store.invitations import Joined
from doorstep.store.records import DeadLetter, Driver, IncomingRow, Offer, Outcome, Token
from driver_api.end_queries import CommandedOrder, ReturnedOrder
from driver_api.queries import (
    DriverSession,
    LettersOf,
    OwnDriver,
    PhoneApp,
    PhoneRecorded,
)

ORDER_ID = uuid4()
RETURNING_ID = uuid4()
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


class MemoryStore:
    """Tokens `tok-d1`, `tok-d2` and `tok-staff`; answers what a test puts into `outcomes`."""

    def __init__(self) -> None:
        self.tokens = {
            token_sha256("tok-d1"): Token("driver", "d1", None),
            token_sha256("tok-d2"): Token("driver", "d2", None),
            token_sha256("tok-staff"): Token("staff", None, None, "anna", "admin"),
            token_sha256("tok-customer"): Token("customer", None, ORDER_ID),
        }
        self.phones = {token_sha256("phn-d1"): Token("phone", "d1", None)}
        self.letters: list[DeadLetter] = []
        self.heard: list[PhoneApp] = []
        self.wanted_mode: int | None = None
        self.invitations: dict[str, str] = {"inv-d1": "d1"}
        self.followed: dict[str, bool] = {}
        self.is_too_fast = False
        self.rows: list[IncomingRow] = []
        self.outcomes: list[Outcome] = []
        self.commands: list[tuple[str, str, str | None]] = []
        self.failures: list[tuple[str, str | None, str | None]] = []
        self.deliveries: list[tuple[str | None, str | None]] = []
        self.photos: list[tuple[str, bytes]] = []
        self.wrong_pin: Exception | None = None
        self.look_ups = 0
        self.transactions = 0
        self.over_quota: set[str] = set()
        self.away = False

    def _check(self) -> None:
        if self.away:
            raise StoreUnavailable

    async def find_token(self, sha256: bytes) -> Token | None:
        self._check()
        self.look_ups += 1
        return self.tokens.get(sha256)

    async def record_fixes(
        self, rows: Sequence[IncomingRow], *, has_quota: bool = True
    ) -> list[Outcome]:
        self._check()
        self.transactions += 1
        if has_quota and rows[0][1] in self.over_quota:
            raise TooManyRequests(8.0)
        self.rows.extend(rows)
        return self.outcomes

    async def find_phone(self, sha256: bytes) -> Token | None:
        self._check()
        return self.phones.get(sha256)

    async def record_phone(
        self, rows: Sequence[IncomingRow], letters_of: LettersOf, phone: PhoneApp
    ) -> PhoneRecorded:
        self._check()
        if self.is_too_fast:
            raise TooManyRequests(60)
        self.letters += letters_of(self.outcomes)
        self.rows.extend(rows)
        self.heard.append(phone)
        return PhoneRecorded(self.outcomes, self.wanted_mode if phone.can_command else None)

    def _driver_of(self, token_sha256: bytes) -> str:
        driver_id = self.tokens[token_sha256].driver_id
        assert driver_id is not None
        return driver_id

    async def change_duty(
        self, token_sha256: bytes, command: str, idempotency_key: str | None
    ) -> Driver:
        driver_id = self._driver_of(token_sha256)
        self.commands.append((driver_id, command, idempotency_key))
        if command == "on_break":
            raise IllegalTransition(driver_id, command, "to_customer", ["off_duty"])
        return Driver(driver_id, command, "available", None)

    async def command_order(
        self, token_sha256: bytes, order_id: UUID, command: str, idempotency_key: str | None
    ) -> CommandedOrder:
        driver_id = self._driver_of(token_sha256)
        self.commands.append((driver_id, command, idempotency_key))
        if order_id != ORDER_ID:
            raise UnknownOrder
        return CommandedOrder(order_id, "delivered", 1, 7, driver_id)

    async def fail_order(
        self,
        token_sha256: bytes,
        order_id: UUID,
        reason: str,
        note: str | None,
        next_step: str | None,
        idempotency_key: str | None,
    ) -> CommandedOrder:
        self.failures.append((reason, note, next_step))
        return await self.command_order(token_sha256, order_id, "fail", idempotency_key)

    async def deliver_order(
        self,
        token_sha256: bytes,
        order_id: UUID,
        pin: str | None,
        note: str | None,
        idempotency_key: str | None,
    ) -> CommandedOrder:
        self.deliveries.append((pin, note))
        if self.wrong_pin is not None:
            raise self.wrong_pin
        return await self.command_order(token_sha256, order_id, "deliver", idempotency_key)

    async def store_photo(
        self, token_sha256: bytes, order_id: UUID, media_type: str, content: bytes
    ) -> datetime:
        await self.command_order(token_sha256, order_id, "photo", None)
        self.photos.append((media_type, content))
        return NOON

    async def end_return(self, token_sha256: bytes, order_id: UUID) -> ReturnedOrder:
        await self.command_order(token_sha256, order_id, "returned", None)
        return ReturnedOrder(order_id, self._driver_of(token_sha256), NOON, NOON)

    async def read_name(self, token_sha256: bytes) -> str:
        return "Anna"

    async def accept_offer(
        self, token_sha256: bytes, order_id: UUID, idempotency_key: str | None
    ) -> CommandedOrder:
        return await self.command_order(token_sha256, order_id, "accept", idempotency_key)

    async def decline_offer(
        self, token_sha256: bytes, order_id: UUID, idempotency_key: str | None
    ) -> Offer:
        self.commands.append((self._driver_of(token_sha256), "decline_offer", idempotency_key))
        if order_id != ORDER_ID:
            raise OfferClosed("this offer has expired")
        return Offer(order_id, "d1", NOON, NOON, NOON, "declined")

    async def read_driver(self, token_sha256: bytes) -> OwnDriver:
        if self._driver_of(token_sha256) != "d1":
            raise UnknownDriver
        restaurant = {"name": "Da Mario", "lon_deg": 11.25, "lat_deg": 43.77}
        order = {
            "order_id": str(ORDER_ID),
            "state": "assigned",
            "assignment_no": 1,
            "assigned_at": NOON.isoformat(),
            "restaurant": {**restaurant, "address": "Piazza 1", "phone": None},
            "destination": {"lon_deg": 11.26, "lat_deg": 43.78},
            "customer": {
                "name": "Carla",
                "phone": "+39 055 1",
                "contact_rule": "call",
                "address": "Via 2",
                "note": "Ring",
            },
        }
        offer = {
            "order_id": str(ORDER_ID),
            "restaurant": restaurant,
            "pickup_distance_m": 812.0,
            "offered_at": NOON.isoformat(),
            "expires_at": NOON.isoformat(),
        }
        returning = {
            "order_id": str(RETURNING_ID),
            "started_at": NOON.isoformat(),
            "items": "2 x pizza",
            "restaurant": restaurant,
        }
        ends = {"name": "Anna", "pin_order_ids": [str(ORDER_ID)], "returns": [returning]}
        driver = Driver("d1", "on_duty", "to_restaurant", ORDER_ID)
        return OwnDriver(driver, order, [offer], ends)

    async def open_session(
        self, token_sha256: bytes, session_sha256: bytes, lifetime_s: float
    ) -> DriverSession | None:
        self._check()
        holder = self.tokens.get(token_sha256)
        if holder is None or holder.role != "driver":
            return None
        self.tokens[session_sha256] = holder
        assert holder.driver_id is not None
        expires_at = datetime.now(UTC) + timedelta(seconds=lifetime_s)
        return DriverSession(holder.driver_id, "Anna", expires_at)

    async def use_invitation(
        self, token: str, *, follow: str, session: str, session_s: float, secret: PhoneSecret | None
    ) -> Joined | None:
        self._check()
        driver_id = self.invitations.pop(token, None)
        if driver_id is None:
            return None
        self.tokens[token_sha256(session)] = Token("driver", driver_id, None)
        self.phones = (
            {token_sha256(secret.token): Token("phone", driver_id, None)} if secret else {}
        )
        self.followed[follow] = False
        return Joined(driver_id, "Anna", datetime.now(UTC) + timedelta(seconds=session_s))

    async def has_position(self, follow: str) -> bool | None:
        self._check()
        return self.followed.get(follow)

    async def close_session(self, session_sha256: bytes) -> None:
        self._check()
        self.tokens.pop(session_sha256, None)

    async def is_available(self) -> bool:
        return not self.away


class MemoryPositions:
    def __init__(self) -> None:
        self.published: list[tuple[str, Fix]] = []

    def publish(self, driver_id: str, fix: Fix, received_at_ms: int) -> None:
        self.published.append((driver_id, fix))

    def close(self) -> None:
        pass


def make_fix(**members: Any) -> dict[str, Any]:
    return {
        "boot": "b1",
        "seq": 1,
        "fix_at": "2026-01-01T12:00:00Z",
        "lat_deg": 43.77,
        "lon_deg": 11.25,
        **members,
    }


def problem_of(answer: httpx.Response, status: int, slug: str) -> dict[str, Any]:
    document: dict[str, Any] = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.status_code, document["type"]) == (status, f"/problems/{slug}"), document
    assert document["status"] == status
    assert document["title"]
    assert document["detail"]
    return document
