"""driver_api: killed in the middle of a PATCH. Also the callers that other faults use."""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import httpx
import psycopg

from doorstep.credentials import driver_token
from doorstep.provision import numbered_ids, owner_connection
from ops.stack.stack import Stack
from tests.faults.background import Background
from tests.faults.environment import FaultEnvironment
from tests.faults.fault import Fault, Outcome

CALLERS = numbered_ids("caller-", 8)
RESTAURANT_ID = 7
DESTINATION = {"lon_deg": 11.2486, "lat_deg": 43.7711}
TIMEOUT_S = 15.0
TRIES = 10  # while the response is 503
KEEP_S = 2.0  # keep-alive; the server closes an idle connection after 5 s
STEADY_S = 2.0
STEADY_WITHIN_S = 60.0
SESSION_ENDS_S = 0.5  # a session without a client ends after its statement
RETRY_AFTER_S = 0.3  # without a Retry-After
NO_RESPONSE = 0  # instead of a status: refused, reset, or timed out


@dataclass(frozen=True, slots=True)
class Response:
    """The response to a request, and to its last retry after a failure."""

    method: str
    driver_id: str  # empty: a GET
    at_s: float  # time.monotonic() when it was sent
    took_s: float
    status: int
    retry_after: bool
    detail: str  # of a problem
    retry_status: int | None = None

    @property
    def failed(self) -> bool:
        """Say whether the first response was an error."""
        return self.status != httpx.codes.OK


class Callers(Background):
    """Sends PATCH and GET /track at a steady rate. `responses` has all responses.

    A failed request is sent again up to `retries` times.
    """

    def __init__(self, stack: Stack, per_s: float = 30.0, *, retries: int = 1) -> None:
        super().__init__("callers")
        self.responses: list[Response] = []
        self.acked: list[tuple[str, int]] = []  # (driver_id, seq) of each PATCH answered with 200
        self.boot = "c" + secrets.token_hex(6)
        self._stack = stack
        self._pace_s = 1 / per_s
        self._retries = retries
        self._key = stack.paths.fleet_key()
        self._staff = {"Authorization": f"Bearer {stack.paths.staff_token()}"}

    def prepare(self) -> None:
        """Register the drivers."""
        self._stack.add_drivers(CALLERS)

    def since(self, at_s: float, until_s: float = float("inf")) -> list[Response]:
        """Return the responses to requests sent in this time."""
        return [one for one in list(self.responses) if at_s <= one.at_s < until_s]

    def wait_steady(self) -> None:
        """Wait until nothing failed for STEADY_S and both kinds succeed. Raises TimeoutError."""
        began = time.monotonic()
        recent: list[Response] = []
        while time.monotonic() < began + STEADY_WITHIN_S:
            time.sleep(0.1)
            if self.failure is not None:
                raise self.failure
            steady_since = max(began, time.monotonic() - STEADY_S)
            recent = [one for one in self.since(began) if one.at_s + one.took_s >= steady_since]
            kinds = {one.method for one in recent if not one.failed}
            steady = time.monotonic() - began >= STEADY_S and not any(one.failed for one in recent)
            if steady and kinds == {"PATCH", "GET"}:
                return
        seen = Counter(f"{one.method} {one.status} {one.detail}" for one in self.since(began))
        raise TimeoutError(f"not steady within {STEADY_WITHIN_S:.0f} s: {dict(seen)}")

    def lost(self) -> int:
        """Count the fixes that were answered with 200 and are not stored exactly once."""
        acked = list(self.acked)
        with owner_connection(self._stack.database_admin_url) as conn:
            there = rows_of(conn, self.boot)
        return sum(there.get(one) != 1 for one in acked)

    async def work(self) -> None:
        limits = httpx.Limits(max_connections=200, keepalive_expiry=KEEP_S)
        async with httpx.AsyncClient(timeout=TIMEOUT_S, limits=limits, trust_env=False) as client:
            url = await self._track_url(client)
            async with asyncio.TaskGroup() as group:
                seq = 0
                while not self.stopping.is_set():
                    seq += 1
                    group.create_task(self._patch(client, seq))
                    group.create_task(self._call(client, "GET", url, "", self._staff))
                    await asyncio.sleep(2 * self._pace_s)

    async def _track_url(self, client: httpx.AsyncClient) -> str:
        url = self._stack.addresses.tracking_api_url
        order = {"restaurant_id": RESTAURANT_ID, "destination": DESTINATION}
        headers = self._staff | {"Idempotency-Key": self.boot}
        for _ in range(TRIES):
            response = await client.post(f"{url}/orders", json=order, headers=headers)
            if response.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                break
            await asyncio.sleep(float(response.headers["Retry-After"]))
        response.raise_for_status()
        return f"{url}/track/{response.json()['order_id']}"

    async def _patch(self, client: httpx.AsyncClient, seq: int) -> None:
        driver_id = CALLERS[seq % len(CALLERS)]
        url = f"{self._stack.addresses.driver_api_url}/drivers/{driver_id}/location"
        token = {"Authorization": f"Bearer {driver_token(self._key, driver_id)}"}
        if await self._call(client, "PATCH", url, driver_id, token, make_fix(self.boot, seq)):
            self.acked.append((driver_id, seq))

    async def _call(
        self,
        client: httpx.AsyncClient,
        method: str,
        url: str,
        driver_id: str,
        headers: dict[str, str],
        body: dict[str, Any] | None = None,
    ) -> bool:
        """Send a request, and retry it after a failure. Returns whether one of them got 200."""
        at_s = time.monotonic()
        first = await _send(client, method, url, headers, body)
        took_s = time.monotonic() - at_s
        status = first.status_code if first else NO_RESPONSE
        has_retry_after = first is not None and "Retry-After" in first.headers
        detail = _detail(first) if first and status != httpx.codes.OK else ""
        last, retry_status, retries = first, None, 0
        while (
            status != httpx.codes.OK
            and retry_status in (None, NO_RESPONSE, httpx.codes.SERVICE_UNAVAILABLE)
            and retries < self._retries
        ):
            retries += 1
            wait_s = last.headers.get("Retry-After") if last else None
            await asyncio.sleep(float(wait_s or RETRY_AFTER_S))
            last = await _send(client, method, url, headers, body)
            retry_status = last.status_code if last else NO_RESPONSE
        self.responses.append(
            Response(method, driver_id, at_s, took_s, status, has_retry_after, detail, retry_status)
        )
        return httpx.codes.OK in (status, retry_status)


def _detail(response: httpx.Response) -> str:
    if response.headers["Content-Type"] == "application/problem+json":
        return str(response.json()["detail"])
    return response.text  # the server's own, not the application's


async def _send(
    client: httpx.AsyncClient,
    method: str,
    url: str,
    headers: dict[str, str],
    body: dict[str, Any] | None,
) -> httpx.Response | None:
    try:
        return await client.request(method, url, headers=headers, json=body)
    except httpx.TransportError:
        return None


def make_fix(boot: str, seq: int) -> dict[str, Any]:
    """Return a fix of now in Florence, at a different place for each seq."""
    return {
        "boot": boot,
        "seq": seq,
        "fix_at": round(time.time() * 1000),
        "lat_deg": round(43.77 + seq % 1000 * 1e-6, 6),
        "lon_deg": 11.25,
        "accuracy_m": 5.0,
        "speed_mps": 3.5,
        "battery": 0.5,
    }


def rows_of(conn: psycopg.Connection[Any], boot: str) -> dict[tuple[str, int], int]:
    """Count the history's rows of each (driver_id, seq) of a boot."""
    statement = (
        "SELECT driver_id, seq, count(*) FROM doorstep.fix_history WHERE boot = %s GROUP BY 1, 2"
    )
    return {(driver_id, seq): rows for driver_id, seq, rows in conn.execute(statement, [boot])}


def statuses(responses: Iterable[Response]) -> dict[int, int]:
    """Count each first status."""
    counts: dict[int, int] = {}
    for one in responses:
        counts[one.status] = counts.get(one.status, 0) + 1
    return dict(sorted(counts.items()))


# -- fault 21 ---------------------------------------------------------------------------------

FIX_ROWS = """
SELECT driver_id, seq, (extract(epoch FROM fix_at) * 1000)::int8, lat_deg, lon_deg, accuracy_m,
    speed_mps, battery, quarantine
FROM doorstep.fix_history WHERE boot = %s
"""
STORED = "SELECT driver_id, stored FROM doorstep.driver_boot WHERE boot = %s"
ROUNDS = 8
CONCURRENT = 24  # PATCH requests in flight
Sent = tuple[str, dict[str, Any]]


def killed_in_a_patch(env: FaultEnvironment) -> Outcome:
    """Kill -9 driver_api at random moments with many PATCH requests in flight, then retry them."""
    boot = "k" + secrets.token_hex(6)
    env.stack.add_drivers(CALLERS)
    answered: list[Sent] = []
    torn = there = repeated = 0
    refused: list[str] = []
    killed_at = time.monotonic()
    for number in range(ROUNDS):
        unanswered, more, killed_at = asyncio.run(_patch_until_killed(env, boot, number))
        answered += more
        env.stack.wait_ready()
        time.sleep(SESSION_ENDS_S)
        with env.database() as conn:
            rows, stored = _rows(conn, boot)
        for driver_id, fix in unanswered:
            key = (driver_id, fix["seq"])
            is_there = key in rows
            there += is_there
            torn += is_there != (fix["seq"] in stored.get(driver_id, set()))
            torn += is_there and rows[key] != [_values(fix)]
            token = driver_token(env.stack.paths.fleet_key(), driver_id)
            response = env.driver_api.patch(
                f"/drivers/{driver_id}/location",
                json=fix,
                headers={"Authorization": f"Bearer {token}"},
            )
            wanted = "duplicate" if is_there else "committed"
            if response.status_code != httpx.codes.OK or response.json()["outcome"] != wanted:
                refused.append(f"{response.status_code} {response.text[:80]}")
            repeated += 1
    recovery_s = env.wait_healthy(since=killed_at)
    with env.database() as conn:
        rows, _ = _rows(conn, boot)
    lost = sum(rows.get((driver_id, fix["seq"])) != [_values(fix)] for driver_id, fix in answered)
    twice = sum(len(copies) > 1 for copies in rows.values())
    return Outcome(
        f"{ROUNDS} kills, {repeated} PATCHes without a response: {there} rows complete, "
        f"{repeated - there} absent, {torn} torn; {len(refused)} wrong responses to retries"
        f"{': ' + refused[0] if refused else ''}; {lost} of {len(answered)} acked lost, "
        f"{twice} twice",
        recovery_s,
        repeated >= ROUNDS and 0 < there < repeated and not torn + len(refused) + lost + twice,
    )


async def _patch_until_killed(
    env: FaultEnvironment, boot: str, number: int
) -> tuple[list[Sent], list[Sent], float]:
    """Return the requests without a response, those with 200, and when the process was killed."""
    unanswered: list[Sent] = []
    answered: list[Sent] = []
    killed = asyncio.Event()
    key = env.stack.paths.fleet_key()

    async def call(client: httpx.AsyncClient, caller: int) -> None:
        seq = number * 1_000_000 + caller * 10_000
        driver_id = CALLERS[caller % len(CALLERS)]
        headers = {"Authorization": f"Bearer {driver_token(key, driver_id)}"}
        while not killed.is_set():
            seq += 1
            fix = make_fix(boot, seq)
            response = await _send(client, "PATCH", f"/drivers/{driver_id}/location", headers, fix)
            if response is None:
                unanswered.append((driver_id, fix))
                return
            if response.status_code == httpx.codes.OK:
                answered.append((driver_id, fix))

    limits = httpx.Limits(max_connections=CONCURRENT)
    url = env.addresses.driver_api_url
    async with (
        httpx.AsyncClient(base_url=url, limits=limits, trust_env=False) as client,
        asyncio.TaskGroup() as group,
    ):
        for caller in range(CONCURRENT):
            group.create_task(call(client, caller))
        await asyncio.sleep(random.uniform(0.3, 0.6))
        killed_at = env.kill("driver_api")
        killed.set()
    return unanswered, answered, killed_at


def _rows(
    conn: psycopg.Connection[Any], boot: str
) -> tuple[dict[tuple[str, int], list[tuple[Any, ...]]], dict[str, set[int]]]:
    """Return a boot's rows in the history by (driver_id, seq), and each driver's stored seqs."""
    rows: dict[tuple[str, int], list[tuple[Any, ...]]] = {}
    for driver_id, seq, *values in conn.execute(FIX_ROWS, [boot]):
        rows.setdefault((driver_id, seq), []).append(tuple(values))
    stored = {
        driver_id: {seq for span in spans for seq in range(span.lower, span.upper)}
        for driver_id, spans in conn.execute(STORED, [boot])
    }
    return rows, stored


def _values(fix: dict[str, Any]) -> tuple[Any, ...]:
    names = ("fix_at", "lat_deg", "lon_deg", "accuracy_m", "speed_mps", "battery")
    return (*(fix[name] for name in names), None)


FAULTS = (
    Fault(
        21,
        "kill -9 of driver_api inside a PATCH",
        "the row whole or absent, the retry idempotent",
        None,
        quick=False,
        run=killed_in_a_patch,
    ),
)
