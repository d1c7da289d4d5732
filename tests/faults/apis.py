"""driver_api and tracking_api under callers: killed in the middle of a PATCH."""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import httpx
import psycopg

from doorstep.credentials import driver_token
from doorstep.provision import numbered, owner_connection
from ops.stack.stack import Stack
from tests.faults.background import Background
from tests.faults.fault import Fault, Seen
from tests.faults.lab import Lab

CALLERS = numbered("caller-", 8)
RESTAURANT_ID = 7
DESTINATION = {"lon_deg": 11.2486, "lat_deg": 43.7711}
TIMEOUT_S = 15.0
TRIES = 10  # while the answer is 503
KEEP_S = 2.0  # a connection for the next request; the server closes one after 5 s
STEADY_S = 2.0
STEADY_WITHIN_S = 60.0
SESSION_ENDS_S = 0.5  # a session whose client is gone ends after its statement
NO_ANSWER = 0  # in place of a status: refused, reset, or nothing within TIMEOUT_S


@dataclass(frozen=True, slots=True)
class Answer:
    """One request's answer, and that of the one repetition after a failure."""

    method: str
    driver_id: str  # empty: a GET
    at_s: float  # time.monotonic() when it was sent
    took_s: float
    status: int
    retry_after: bool
    detail: str  # of a problem
    again: int | None = None

    @property
    def failed(self) -> bool:
        """Whether the caller saw an error, repeated or not."""
        return self.status != httpx.codes.OK


class Callers(Background):
    """PATCH and GET /track at a steady pace, in a thread; `answers` has them all."""

    def __init__(self, stack: Stack, per_s: float = 30.0) -> None:
        super().__init__("callers")
        self.answers: list[Answer] = []
        self.acked: list[tuple[str, int]] = []  # (driver_id, seq) of each PATCH answered with 200
        self.boot = "c" + secrets.token_hex(6)
        self._stack = stack
        self._pace_s = 1 / per_s
        self._key = stack.paths.fleet_key()
        self._staff = {"Authorization": f"Bearer {stack.paths.staff_token()}"}

    def prepare(self) -> None:
        """Register them."""
        self._stack.add_drivers(CALLERS)

    def since(self, at_s: float, until_s: float = float("inf")) -> list[Answer]:
        """The answers to requests sent in this time."""
        return [one for one in list(self.answers) if at_s <= one.at_s < until_s]

    def wait_steady(self) -> None:
        """Wait until nothing has failed for a while and both kinds are answered, or raise."""
        began = time.monotonic()
        recent: list[Answer] = []
        while time.monotonic() < began + STEADY_WITHIN_S:
            time.sleep(0.1)
            if self.failure is not None:
                raise self.failure
            calm_since = max(began, time.monotonic() - STEADY_S)
            recent = [one for one in self.since(began) if one.at_s + one.took_s >= calm_since]
            kinds = {one.method for one in recent if not one.failed}
            calm = time.monotonic() - began >= STEADY_S and not any(one.failed for one in recent)
            if calm and kinds == {"PATCH", "GET"}:
                return
        seen = ", ".join(sorted({f"{one.status} {one.detail}" for one in recent if one.failed}))
        raise TimeoutError(f"callers still see errors after {STEADY_WITHIN_S:.0f} s: {seen}")

    def lost(self) -> int:
        """How many fixes were answered with 200 and are not in the database once, and once only."""
        acked = list(self.acked)
        with owner_connection(self._stack.database_admin_url) as conn:
            there = rows_of(conn, self.boot)
        return sum(there.get(one) != 1 for one in acked)

    async def live(self) -> None:
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
            answer = await client.post(f"{url}/orders", json=order, headers=headers)
            if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                break
            await asyncio.sleep(float(answer.headers["Retry-After"]))
        answer.raise_for_status()
        return f"{url}/track/{answer.json()['order_id']}"

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
        """Ask, and once more after a failure; whether one of the two was answered with 200."""
        at_s = time.monotonic()
        first = await _ask(client, method, url, headers, body)
        took_s = time.monotonic() - at_s
        status = first.status_code if first else NO_ANSWER
        wait_s = first.headers.get("Retry-After") if first else None
        detail = first.json()["detail"] if first and status != httpx.codes.OK else ""
        again: int | None = None
        if status != httpx.codes.OK:
            await asyncio.sleep(float(wait_s or 0.3))
            second = await _ask(client, method, url, headers, body)
            again = second.status_code if second else NO_ANSWER
        told = wait_s is not None
        self.answers.append(Answer(method, driver_id, at_s, took_s, status, told, detail, again))
        return httpx.codes.OK in (status, again)


async def _ask(
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
    """A fix of now, somewhere in Florence, each seq elsewhere."""
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
    """How many rows of the history each (driver_id, seq) of a boot has."""
    statement = (
        "SELECT driver_id, seq, count(*) FROM doorstep.fix_history WHERE boot = %s GROUP BY 1, 2"
    )
    return {(driver_id, seq): rows for driver_id, seq, rows in conn.execute(statement, [boot])}


def statuses(answers: Iterable[Answer]) -> dict[int, int]:
    """How often each first status came."""
    counts: dict[int, int] = {}
    for one in answers:
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
AT_ONCE = 24  # PATCHes under way, each at another moment of its life
Sent = tuple[str, dict[str, Any]]


def killed_in_a_patch(lab: Lab) -> Seen:
    """Kill -9 driver_api at random moments with many PATCHes under way; repeat the unanswered."""
    boot = "k" + secrets.token_hex(6)
    lab.stack.add_drivers(CALLERS)
    answered: list[Sent] = []
    torn = there = repeated = 0
    refused: list[str] = []
    killed_at = time.monotonic()
    for number in range(ROUNDS):
        unanswered, more, killed_at = asyncio.run(_patch_until_killed(lab, boot, number))
        answered += more
        lab.stack.wait_ready()
        time.sleep(SESSION_ENDS_S)
        with lab.database() as conn:
            rows, stored = _rows(conn, boot)
        for driver_id, fix in unanswered:
            key = (driver_id, fix["seq"])
            is_there = key in rows
            there += is_there
            torn += is_there != (fix["seq"] in stored.get(driver_id, set()))
            torn += is_there and rows[key] != [_values(fix)]
            token = driver_token(lab.stack.paths.fleet_key(), driver_id)
            answer = lab.driver_api.patch(
                f"/drivers/{driver_id}/location",
                json=fix,
                headers={"Authorization": f"Bearer {token}"},
            )
            wanted = "duplicate" if is_there else "committed"
            if answer.status_code != httpx.codes.OK or answer.json()["outcome"] != wanted:
                refused.append(f"{answer.status_code} {answer.text[:80]}")
            repeated += 1
    recovery_s = lab.wait_healthy(since=killed_at)
    with lab.database() as conn:
        rows, _ = _rows(conn, boot)
    lost = sum(rows.get((driver_id, fix["seq"])) != [_values(fix)] for driver_id, fix in answered)
    twice = sum(len(copies) > 1 for copies in rows.values())
    return Seen(
        f"{ROUNDS} kills, {repeated} PATCHes without an answer: {there} rows whole, "
        f"{repeated - there} absent, {torn} torn; {len(refused)} repetitions not as they should be"
        f"{': ' + refused[0] if refused else ''}; {lost} of {len(answered)} acked lost, "
        f"{twice} twice",
        recovery_s,
        repeated >= ROUNDS and 0 < there < repeated and not torn + len(refused) + lost + twice,
    )


async def _patch_until_killed(
    lab: Lab, boot: str, number: int
) -> tuple[list[Sent], list[Sent], float]:
    """What was not answered, what was answered with 200, and when the process was killed."""
    unanswered: list[Sent] = []
    answered: list[Sent] = []
    killed = asyncio.Event()
    key = lab.stack.paths.fleet_key()

    async def call(client: httpx.AsyncClient, caller: int) -> None:
        seq = number * 1_000_000 + caller * 10_000
        driver_id = CALLERS[caller % len(CALLERS)]
        headers = {"Authorization": f"Bearer {driver_token(key, driver_id)}"}
        while not killed.is_set():
            seq += 1
            fix = make_fix(boot, seq)
            answer = await _ask(client, "PATCH", f"/drivers/{driver_id}/location", headers, fix)
            if answer is None:
                unanswered.append((driver_id, fix))
                return
            if answer.status_code == httpx.codes.OK:
                answered.append((driver_id, fix))

    limits = httpx.Limits(max_connections=AT_ONCE)
    url = lab.addresses.driver_api_url
    async with (
        httpx.AsyncClient(base_url=url, limits=limits, trust_env=False) as client,
        asyncio.TaskGroup() as group,
    ):
        for caller in range(AT_ONCE):
            group.create_task(call(client, caller))
        await asyncio.sleep(random.uniform(0.3, 0.6))
        killed_at = lab.kill("driver_api")
        killed.set()
    return unanswered, answered, killed_at


def _rows(
    conn: psycopg.Connection[Any], boot: str
) -> tuple[dict[tuple[str, int], list[tuple[Any, ...]]], dict[str, set[int]]]:
    """The history's rows of a boot by (driver_id, seq), and each driver's stored seqs."""
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
