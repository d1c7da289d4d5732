"""The doors as fixes really come through them: a payload from Kafka, a request to driver_api.

Two seams are replaced: Kafka's record is made here, and HTTP goes to the application without a
socket, as a member of staff (a driver's phone would be limited to 5 fixes/s).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import datetime
from typing import Any, TypeVar

import httpx

from doorstep.fix import Fix as WireFix
from doorstep.fix import encode_fix, encode_void
from doorstep.store.records import IncomingRow, Token
from driver_api.app import build_app
from driver_api.context import AppContext
from driver_api.queries import DriverQueries, open_queries
from driver_events.batch import Record, decode_batch
from tests.property.records import Fix

T = TypeVar("T")
Became = tuple[str, str | None]  # outcome, reason
PATIENCE = 30  # requests of 2 s each
NO_FIX_AT = "missing_field"  # why a fix without its instant is refused


def payload_of(fix: Fix) -> bytes:
    """What a device sends. A fix that can't be read has lost its instant."""
    if fix.reason == "void":
        assert fix.boot is not None
        assert fix.seq is not None
        return encode_void(fix.boot, fix.seq)
    if fix.place is None or fix.fix_at is None:
        return json.dumps({"boot": fix.boot, "seq": fix.seq, "lat_deg": 1, "lon_deg": 1}).encode()
    place = (fix.place.lat_deg, fix.place.lon_deg)
    return encode_fix(WireFix(fix.boot, fix.seq, fix.fix_at, *place, *fix.values))


def rows_of(fixes: Sequence[Fix]) -> tuple[list[IncomingRow], dict[int, Became]]:
    """Read fixes as driver_events would, each from a record of its own. Returns the rows, with
    the fixes' numbers, and what became of those that have none.

    Over MQTT a fix has an identity; one without comes in here as driver_api would write it.
    """
    rows: list[IncomingRow] = []
    refused: dict[int, Became] = {}
    for n, fix in enumerate(fixes):
        if fix.boot is None and fix.place is not None:
            place = (fix.place.lon_deg, fix.place.lat_deg)
            seen = (fix.boot, fix.seq, fix.fix_at, fix.received_at, *place, *fix.values)
            rows.append((n, fix.driver_id, *seen, None))  # type: ignore[arg-type]
            continue
        received_at_ms = round(fix.received_at.timestamp() * 1000)
        record = Record(fix.driver_id.encode(), payload_of(fix), received_at_ms)
        batch = decode_batch([record], 10)
        rows += [(n, *row[1:]) for row in batch.rows]
        if batch.refusals:
            refused[n] = ("rejected", batch.refusals[0].reason)
    return rows, refused


class HttpDoor:
    """driver_api: its routes, its pool, its role."""

    def __init__(self, url: str) -> None:
        self._runner = asyncio.Runner()
        self._received_at: datetime | None = None
        self._stack = AsyncExitStack()
        self._client = self._run(self._open(url))

    async def _open(self, url: str) -> httpx.AsyncClient:
        store: DriverQueries = await self._stack.enter_async_context(open_queries(url, 1))
        app = build_app(store, _NoLiveFeed())
        context: AppContext = app.state.context
        app.state.context = replace(context, find_token=_staff, clock=self._now)
        transport = httpx.ASGITransport(app=app)
        headers = {"Authorization": "Bearer staff", "Content-Type": "application/json"}
        return httpx.AsyncClient(transport=transport, base_url="http://driver-api", headers=headers)

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)

    def _now(self) -> datetime:
        assert self._received_at is not None
        return self._received_at

    def close(self) -> None:
        self._run(self._client.aclose())
        self._run(self._stack.aclose())
        self._runner.close()

    def record(self, fixes: Sequence[Fix]) -> dict[int, Became]:
        """Send fixes of one driver that arrive at one instant: one by PATCH, several by POST.
        Returns what became of each that was not committed.
        """
        [driver_id] = {fix.driver_id for fix in fixes}
        [self._received_at] = {fix.received_at for fix in fixes}
        if len(fixes) == 1 and not fixes[0].reason:
            return self._patch(driver_id, fixes[0])
        return self._post(driver_id, fixes)

    def _send(self, method: str, address: str, body: bytes) -> httpx.Response:
        """Ask again, as a phone would, while no connection to the database is free: on a busy
        machine the pool's one may take its time.
        """
        for _ in range(PATIENCE):
            answer = self._run(self._client.request(method, address, content=body))
            if answer.status_code != 503:
                return answer
        raise AssertionError(answer.text)

    def _patch(self, driver_id: str, fix: Fix) -> dict[int, Became]:
        address = f"/drivers/{driver_id}/location"
        answer = self._send("PATCH", address, payload_of(fix))
        said = answer.json()
        if answer.status_code == 200:
            became = (said["outcome"], said.get("reason"))
            return {} if became[0] == "committed" else {0: became}
        if answer.status_code == 409:
            return {0: ("conflict", None)}
        assert answer.status_code == 422, answer.text
        return {0: ("rejected", said["reason"])}

    def _post(self, driver_id: str, fixes: Sequence[Fix]) -> dict[int, Became]:
        body = b'{"fixes": [' + b", ".join(payload_of(fix) for fix in fixes) + b"]}"
        address = f"/drivers/{driver_id}/locations"
        answer = self._send("POST", address, body)
        assert answer.status_code == 200, answer.text
        return {
            one["n"]: (one["outcome"], one.get("reason"))
            for one in answer.json()["outcomes"]
            if one["outcome"] != "committed"
        }


class _NoLiveFeed:
    def publish(self, driver_id: str, fix: WireFix, received_at_ms: int) -> None:
        pass

    def close(self) -> None:
        pass


async def _staff(token_sha256: bytes) -> Token:
    return Token("staff", None, None, "anna", "admin")
