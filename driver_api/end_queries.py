"""How a driver's orders end, in the database: delivered, failed, photographed, taken back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString, NamedTuple, Protocol
from uuid import UUID

from doorstep.errors import PinLocked, Unauthenticated, WrongPin
from doorstep.store.deadline import fetch_one
from doorstep.store.pool import Pool
from sql import query

SQL_FILE: LiteralString = "queries/driver_api.sql"


class CommandedOrder(NamedTuple):
    """An order after a driver's command."""

    order_id: UUID
    state: str
    assignment_no: int
    order_seq: int
    driver_id: str | None


class ReturnedOrder(NamedTuple):
    """A failed order that is back at its restaurant."""

    order_id: UUID
    driver_id: str
    started_at: datetime
    ended_at: datetime


class EndStore(Protocol):
    """How a driver's orders end. Errors are DoorstepErrors; the database checks the token."""

    async def deliver_order(
        self,
        token_sha256: bytes,
        order_id: UUID,
        pin: str | None,
        note: str | None,
        idempotency_key: str | None,
    ) -> CommandedOrder: ...

    async def fail_order(
        self,
        token_sha256: bytes,
        order_id: UUID,
        reason: str | None,
        note: str | None,
        next_step: str | None,
        idempotency_key: str | None,
    ) -> CommandedOrder: ...

    async def store_photo(
        self, token_sha256: bytes, order_id: UUID, media_type: str, content: bytes
    ) -> datetime: ...

    async def end_return(self, token_sha256: bytes, order_id: UUID) -> ReturnedOrder: ...

    async def read_name(self, token_sha256: bytes) -> str: ...


@dataclass(frozen=True, slots=True)
class EndQueries:
    """The EndStore on PostgreSQL."""

    pool: Pool

    async def deliver_order(
        self,
        token_sha256: bytes,
        order_id: UUID,
        pin: str | None,
        note: str | None,
        idempotency_key: str | None,
    ) -> CommandedOrder:
        """Deliver an order. Raises WrongPin or PinLocked, whose try is then counted."""
        parameters = {
            "order_id": order_id,
            "pin": pin,
            "note": note,
            "idempotency_key": idempotency_key,
        }
        row = await self._one("deliver_own_order", token_sha256, parameters)
        refusal, tries_left, retry_after_s = row[5:]
        if refusal == "locked":
            raise PinLocked(retry_after_s)
        if refusal is not None:
            raise WrongPin(refusal, tries_left)
        return CommandedOrder(*row[:5])

    async def fail_order(
        self,
        token_sha256: bytes,
        order_id: UUID,
        reason: str | None,
        note: str | None,
        next_step: str | None,
        idempotency_key: str | None,
    ) -> CommandedOrder:
        """Fail an order, perhaps for a reason, with what follows: `retry`, `return` or None."""
        parameters = {
            "order_id": order_id,
            "reason": reason,
            "note": note,
            "next_step": next_step,
            "idempotency_key": idempotency_key,
        }
        return CommandedOrder(*await self._one("fail_own_order", token_sha256, parameters))

    async def store_photo(
        self, token_sha256: bytes, order_id: UUID, media_type: str, content: bytes
    ) -> datetime:
        """Store the photo of an order in place of an earlier one. Returns the instant."""
        parameters = {"order_id": order_id, "media_type": media_type, "content": content}
        stored_at: datetime = (await self._one("store_own_photo", token_sha256, parameters))[0]
        return stored_at

    async def end_return(self, token_sha256: bytes, order_id: UUID) -> ReturnedOrder:
        """End the way back of a failed order. Raises UnknownOrder if it has none."""
        row = await self._one("end_own_return", token_sha256, {"order_id": order_id})
        return ReturnedOrder(*row)

    async def read_name(self, token_sha256: bytes) -> str:
        """Read the driver's name."""
        return str((await self._one("read_own_name", token_sha256, {}))[0])

    async def _one(
        self, name: LiteralString, token_sha256: bytes, parameters: Mapping[str, object]
    ) -> Sequence[Any]:
        statement = query(name, SQL_FILE)
        row = await fetch_one(self.pool, statement, {"token_sha256": token_sha256, **parameters})
        if row is None:
            raise Unauthenticated
        return row
