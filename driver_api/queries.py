"""Drivers and their fixes in the database."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString, NamedTuple, Protocol
from uuid import UUID

from psycopg import AsyncConnection

from doorstep.credentials import PhoneSecret
from doorstep.errors import DriverLocked, StoreUnavailable, TooManyRequests, Unauthenticated
from doorstep.store import commands, invitations, phones
from doorstep.store.deadline import fetch_one, is_available, run_command, run_transaction
from doorstep.store.fix_writer import record_fixes_async
from doorstep.store.invitations import Joined
from doorstep.store.phones import HeardOf
from doorstep.store.pool import open_pool
from doorstep.store.records import DeadLetter, Driver, IncomingRow, Offer, Outcome, Token
from driver_api.end_queries import CommandedOrder, EndQueries, EndStore
from sql import query

SQL_FILE: LiteralString = "queries/driver_api.sql"
OFFERS_FILE: LiteralString = "queries/offers.sql"
LOCK_PATIENCE_S = 1.0  # a batch holds its drivers' rows for about 0.1 s, rarely for longer
LOCK_RETRY_S = 0.03
QUOTA_PER_S = 5.0  # limits.quota_per_s: for Retry-After
RETRY_WITHIN_S = 0.5  # a broken connection shows at once; a full pool or no database takes 0.9 s


class PhoneApp(NamedTuple):
    """A driver's phone, and the app that it was heard through."""

    driver_id: str
    app: str
    token_sha256: bytes
    mode: int | None = None  # OwnTracks'
    has_position: bool = False
    can_command: bool = False  # its answer may set the mode


class PhoneRecorded(NamedTuple):
    """The outcomes of a phone's fixes, and the mode that OwnTracks is to set, if there is one."""

    outcomes: list[Outcome]
    mode: int | None


LettersOf = Callable[[Sequence[Outcome]], Sequence[DeadLetter]]
Finish = Callable[[AsyncConnection[Any], list[Outcome]], Awaitable[None]]


async def _nothing_more(_conn: AsyncConnection[Any], _outcomes: list[Outcome]) -> None:
    pass


class OwnDriver(NamedTuple):
    """A driver, the order of the next stop, the open offers, and all open orders by stop.

    `order` has the members of CurrentOrderAnswer, an offer those of OfferAnswer, an element of
    `orders` those of StopAnswer; instants as text.
    `ends` has `name`, `pin_order_ids` (of open orders with a PIN) and `returns`.
    """

    driver: Driver
    order: Mapping[str, Any] | None
    offers: Sequence[Mapping[str, Any]]
    ends: Mapping[str, Any]
    orders: Sequence[Mapping[str, Any]] = ()


class DriverSession(NamedTuple):
    """A session of the courier's page."""

    driver_id: str
    name: str
    expires_at: datetime


class Store(EndStore, Protocol):
    """The seam between routes and database. Errors are DoorstepErrors.

    A driver reads and commands by the token, which the database checks.
    """

    async def find_token(self, token_sha256: bytes) -> Token | None: ...

    async def record_fixes(
        self, rows: Sequence[IncomingRow], *, has_quota: bool
    ) -> list[Outcome]: ...

    async def find_phone(self, token_sha256: bytes) -> Token | None: ...

    async def record_phone(
        self, rows: Sequence[IncomingRow], letters_of: LettersOf, phone: PhoneApp
    ) -> PhoneRecorded: ...

    async def change_duty(
        self, token_sha256: bytes, command: str, idempotency_key: str | None
    ) -> Driver: ...

    async def command_order(
        self, token_sha256: bytes, order_id: UUID, command: str, idempotency_key: str | None
    ) -> CommandedOrder: ...

    async def accept_offer(
        self, token_sha256: bytes, order_id: UUID, idempotency_key: str | None
    ) -> CommandedOrder: ...

    async def decline_offer(
        self, token_sha256: bytes, order_id: UUID, idempotency_key: str | None
    ) -> Offer: ...

    async def read_driver(self, token_sha256: bytes) -> OwnDriver: ...

    async def open_session(
        self, token_sha256: bytes, session_sha256: bytes, lifetime_s: float
    ) -> DriverSession | None: ...

    async def close_session(self, session_sha256: bytes) -> None: ...

    async def use_invitation(
        self, token: str, *, follow: str, session: str, session_s: float, secret: PhoneSecret | None
    ) -> Joined | None: ...

    async def has_position(self, follow: str) -> bool | None: ...

    async def is_available(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class DriverQueries(EndQueries):
    """The Store on PostgreSQL."""

    async def find_token(self, token_sha256: bytes) -> Token | None:
        """Look a token up. None if it is unknown, revoked or expired."""
        return await run_command(self.pool, lambda conn: commands.find_token(conn, token_sha256))

    async def record_fixes(self, rows: Sequence[IncomingRow], *, has_quota: bool) -> list[Outcome]:
        """Commit fixes of one driver. Raises DriverLocked, TooManyRequests: nothing is written."""
        return await self._with_retries(rows, _nothing_more, has_quota=has_quota)

    async def find_phone(self, token_sha256: bytes) -> Token | None:
        """Look a phone's token up. None if it is unknown or revoked."""
        driver_id = await run_command(self.pool, lambda conn: phones.find_phone(conn, token_sha256))
        return Token("phone", driver_id, None) if driver_id else None

    async def record_phone(
        self, rows: Sequence[IncomingRow], letters_of: LettersOf, phone: PhoneApp
    ) -> PhoneRecorded:
        """Like `record_fixes`, with the dead letters of their outcomes in the same transaction."""
        heard = HeardOf(phone.driver_id, phone.mode, phone.has_position)
        mode: int | None = None

        async def finish(conn: AsyncConnection[Any], outcomes: list[Outcome]) -> None:
            nonlocal mode
            letters = letters_of(outcomes)
            await phones.add_phone_dead_letters_async(conn, phone.token_sha256, letters)
            mode = await phones.heard_of_phone_async(
                conn, heard, phone.app, can_command=phone.can_command
            )

        return PhoneRecorded(await self._with_retries(rows, finish, has_quota=True), mode)

    async def _with_retries(
        self, rows: Sequence[IncomingRow], finish: Finish, *, has_quota: bool
    ) -> list[Outcome]:
        """Record fixes, then `finish` in the same transaction.

        Retries once after a broken connection: recording a fix twice is harmless. Retries for
        LOCK_PATIENCE_S while a batch of driver_events holds the driver's row.
        """
        started_s = time.monotonic()
        reconnected = False
        while True:
            try:
                return await self._record_fixes(rows, finish, has_quota=has_quota)
            except DriverLocked:
                if time.monotonic() - started_s > LOCK_PATIENCE_S:
                    raise
                await asyncio.sleep(LOCK_RETRY_S)
            except StoreUnavailable:
                if reconnected or time.monotonic() - started_s > RETRY_WITHIN_S:
                    raise
                reconnected = True

    async def _record_fixes(
        self, rows: Sequence[IncomingRow], finish: Finish, *, has_quota: bool
    ) -> list[Outcome]:
        async def record(conn: AsyncConnection[Any]) -> list[Outcome]:
            if not has_quota:
                await conn.execute(query("exempt_from_quota"))
            outcomes = await record_fixes_async(conn, rows) if rows else []
            # Both roll back: a parked fix is not committed, so it is no 200.
            over_quota = sum(found.reason == "over_quota" for found in outcomes)
            if over_quota:
                raise TooManyRequests(over_quota / QUOTA_PER_S)
            if any(found.outcome == "parked" for found in outcomes):
                raise DriverLocked
            await finish(conn, outcomes)
            return outcomes

        return await run_transaction(self.pool, record)

    async def change_duty(
        self, token_sha256: bytes, command: str, idempotency_key: str | None
    ) -> Driver:
        """Apply on_duty, on_break or off_duty."""
        parameters = {"command": command, "idempotency_key": idempotency_key}
        return Driver(*await self._row("change_duty", token_sha256, parameters))

    async def command_order(
        self, token_sha256: bytes, order_id: UUID, command: str, idempotency_key: str | None
    ) -> CommandedOrder:
        """Apply decline, pick_up or fail as the driver."""
        parameters = {
            "order_id": order_id,
            "command": command,
            "idempotency_key": idempotency_key,
        }
        return CommandedOrder(*await self._row("command_own_order", token_sha256, parameters))

    async def accept_offer(
        self, token_sha256: bytes, order_id: UUID, idempotency_key: str | None
    ) -> CommandedOrder:
        """Accept an open offer, which assigns the order. Raises OfferClosed, DriverUnavailable."""
        parameters = {"order_id": order_id, "idempotency_key": idempotency_key}
        row = await self._row("accept_own_offer", token_sha256, parameters, OFFERS_FILE)
        return CommandedOrder(*row)

    async def decline_offer(
        self, token_sha256: bytes, order_id: UUID, idempotency_key: str | None
    ) -> Offer:
        """Decline an open offer. Raises OfferClosed."""
        parameters = {"order_id": order_id, "idempotency_key": idempotency_key}
        return Offer(*await self._row("decline_own_offer", token_sha256, parameters, OFFERS_FILE))

    async def read_driver(self, token_sha256: bytes) -> OwnDriver:
        """Read a driver, their open order and their open offers."""
        row = await self._row("read_own_driver", token_sha256, {})
        return OwnDriver(Driver(*row[:4]), *row[4:])

    async def open_session(
        self, token_sha256: bytes, session_sha256: bytes, lifetime_s: float
    ) -> DriverSession | None:
        """Open a session of a driver's token. None if the token is not good."""
        parameters = {
            "token_sha256": token_sha256,
            "session_sha256": session_sha256,
            "lifetime_s": lifetime_s,
        }
        row = await fetch_one(self.pool, query("open_driver_session", SQL_FILE), parameters)
        return DriverSession(*row) if row else None

    async def use_invitation(
        self, token: str, *, follow: str, session: str, session_s: float, secret: PhoneSecret | None
    ) -> Joined | None:
        """Use an invitation: the earlier phone and sessions end. None if it is not good."""
        return await run_command(
            self.pool,
            lambda conn: invitations.use_invitation(
                conn, token, follow=follow, session=session, session_s=session_s, secret=secret
            ),
        )

    async def has_position(self, follow: str) -> bool | None:
        """Whether a position has come since the invitation was used; None for a bad token."""
        return await run_command(self.pool, lambda conn: invitations.has_position(conn, follow))

    async def close_session(self, session_sha256: bytes) -> None:
        """End a session."""
        parameters = {"session_sha256": session_sha256}
        await fetch_one(self.pool, query("close_driver_session", SQL_FILE), parameters)

    async def _row(
        self,
        name: LiteralString,
        token_sha256: bytes,
        parameters: Mapping[str, object],
        sql_file: LiteralString = SQL_FILE,
    ) -> Sequence[Any]:
        statement = query(name, sql_file)
        row = await fetch_one(self.pool, statement, {"token_sha256": token_sha256, **parameters})
        if row is None:
            raise Unauthenticated
        return row

    async def is_available(self) -> bool:
        """Return within 2 s whether the database answers."""
        return await is_available(self.pool)


@asynccontextmanager
async def open_queries(url: str, pool_size: int) -> AsyncIterator[DriverQueries]:
    """Open the store. The database may come up later."""
    pool = await open_pool(url, pool_size, application_name="driver_api", autocommit=True)
    try:
        yield DriverQueries(pool)
    finally:
        await pool.close()
