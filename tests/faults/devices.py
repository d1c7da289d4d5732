"""Misleading devices: wrong clocks, and fixes that are late, shuffled and duplicated."""

from __future__ import annotations

import asyncio
import json
import random
import secrets
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import psycopg

from device.connection import Connection
from device.device import make_login
from device.settings import DeviceSettings, FleetSecrets
from doorstep.credentials import driver_token
from ops.servers.waiting import wait_until
from tests.faults.environment import FaultEnvironment
from tests.faults.fault import Fault, Outcome

RESTAURANT_ID = 7
CLOCKS = {  # clock -> (offset, reason of the rejection)
    "+1 day": (timedelta(days=1), "in_the_future"),
    "-1 day": (-timedelta(days=1, seconds=1), "too_old"),
    "year 2000": (datetime(2000, 1, 1, tzinfo=UTC) - datetime.now(UTC), "too_old"),
}
REFUSED = 'doorstep_driver_events_refused_total{{reason="{}"}}'
STORED_WITHIN_S = 30.0
LATE = timedelta(hours=2)
COPIES = 3
TRIES = 10  # while the status is 503
WALK_S = 420  # at the restaurant, on the way, at the customer
STEP_S = 5
TWINS = ("twin-a", "twin-b")

Fix = dict[str, Any]


def clocks_wrong(env: FaultEnvironment) -> Outcome:
    """Send fixes of three wrong clocks over MQTT and HTTP, then a good fix."""
    driver_id = f"clock-{time.monotonic_ns()}"
    env.stack.add_drivers([driver_id])
    boot, place = "b", {"lat_deg": 43.7731, "lon_deg": 11.256}
    order_id = assigned_order(env, driver_id, 11.27, 43.78)
    before = {why: env.metric("driver_events", REFUSED.format(why)) for _, why in CLOCKS.values()}
    bad = [
        {"boot": boot, "seq": seq, "fix_at": instant_ms(datetime.now(UTC) + off), **place}
        for seq, (off, _) in enumerate(CLOCKS.values(), 1)
    ]
    publish(env, driver_id, bad)
    wait_until(
        lambda: processed(env, driver_id, boot) == {1, 2, 3}, STORED_WITHIN_S, "all are processed"
    )
    after = {why: env.metric("driver_events", REFUSED.format(why)) - n for why, n in before.items()}
    answers = {
        name: _patch(env, driver_id, {"fix_at": instant_ms(datetime.now(UTC) + off), **place})
        for name, (off, _) in CLOCKS.items()
    }
    refused_right = all(
        answers[name].status_code == 422 and answers[name].json()["reason"] == why
        for name, (_, why) in CLOCKS.items()
    )
    hidden = _shown(env, order_id) is None
    good = {"boot": boot, "seq": 4, "fix_at": instant_ms(datetime.now(UTC)), **place}
    began = time.monotonic()
    publish(env, driver_id, [good])
    wait_until(lambda: _shown(env, order_id) == good["fix_at"], STORED_WITHIN_S, "it is shown")
    shown_s = time.monotonic() - began
    with env.database() as conn:
        stored = conn.execute(
            "SELECT array_agg(seq) FROM fix_history WHERE driver_id = %s", [driver_id]
        ).fetchone()
    command(env.tracking, f"/orders/{order_id}/cancel")
    recovery_s = env.wait_healthy()
    return Outcome(
        f"rejected over MQTT: {_words(after)}; over HTTP: "
        f"{_words({name: one.status_code for name, one in answers.items()})}; the next good fix "
        f"was shown after {shown_s:.1f} s",
        recovery_s,
        after == {"in_the_future": 1, "too_old": 2}
        and refused_right
        and hidden
        and stored == ([4],),
    )


def late_shuffled_thrice(env: FaultEnvironment) -> Outcome:
    """Send a walk of two hours ago in order; for a second driver three times and shuffled."""
    ids = [f"{twin}-{time.monotonic_ns()}" for twin in TWINS]
    env.stack.add_drivers(ids)
    with env.database() as conn:
        row = conn.execute(
            "SELECT lon_deg, lat_deg FROM restaurant WHERE restaurant_id = %s", [RESTAURANT_ID]
        ).fetchone()
    assert row is not None
    start, end = (row[0], row[1]), (row[0] + 0.012, row[1] + 0.006)
    began_at = datetime.now(UTC) - LATE - timedelta(seconds=WALK_S)
    walk = make_walk(start, end, began_at)
    orders = [assigned_order(env, one, *end, assigned_at=began_at) for one in ids]
    publish(env, ids[0], walk)
    copies = walk[:-1] * COPIES
    random.Random(27).shuffle(copies)
    publish(env, ids[1], [*copies, walk[-1]])  # it is processed last
    everything = set(range(1, len(walk) + 1))
    wait_until(
        lambda: all(processed(env, one, "b") == everything for one in ids),
        STORED_WITHIN_S,
        "all are processed",
    )
    recovery_s = env.wait_healthy()
    with env.database() as conn:
        ends = [final_state_of(conn, one, order) for one, order in zip(ids, orders, strict=True)]
        rows = conn.execute(
            "SELECT count(*) FROM fix_history WHERE driver_id = ANY(%s)", [ids]
        ).fetchone()
    for order_id in orders:
        command(env.tracking, f"/orders/{order_id}/cancel")
    same = ends[0] == ends[1]
    return Outcome(
        f"{len(walk)} fixes of {LATE.seconds // 3600} h ago, once in order and {COPIES} times "
        f"shuffled: {'the same' if same else 'A DIFFERENT'} final state, {ends[1]['state']}, with "
        f"{len(ends[1]['evidence'])} pieces of evidence and "
        f"{rows[0] - len(walk) * 2 if rows else '?'} extra rows",
        recovery_s,
        same
        and rows == (len(walk) * 2,)
        and ends[0]["state"] == "at_customer"
        and len(ends[0]["evidence"]) == 4,
    )


# -- sending ----------------------------------------------------------------------------------


def make_walk(
    start: tuple[float, float], end: tuple[float, float], began_at: datetime
) -> list[Fix]:
    """Return a delivery's fixes: 60 s at the restaurant, 5 min on the way, 60 s at the door."""
    fixes: list[Fix] = []
    for seq, at_s in enumerate(range(0, WALK_S, STEP_S), 1):
        share = min(1.0, max(0.0, (at_s - 60) / (WALK_S - 120)))
        fixes.append(
            {
                "boot": "b",
                "seq": seq,
                "fix_at": instant_ms(began_at + timedelta(seconds=at_s)),
                "lon_deg": round(start[0] + (end[0] - start[0]) * share, 7),
                "lat_deg": round(start[1] + (end[1] - start[1]) * share, 7),
                "accuracy_m": 5.0,
            }
        )
    return fixes


def publish(env: FaultEnvironment, driver_id: str, fixes: Sequence[Mapping[str, Any]]) -> None:
    """Publish as a phone without a journal, one message a fix, until the broker has them all."""
    settings = DeviceSettings(
        mqtt_url=env.addresses.mqtt_url,
        fleet_key_file=env.stack.paths.fleet_key_file,
        staff_token_file=env.stack.paths.staff_token_file,
    )

    async def send() -> None:
        acked: asyncio.Queue[int] = asyncio.Queue()
        login = make_login(driver_id, settings, FleetSecrets(settings))
        connection = Connection(login, b"{}", acked.put_nowait, lambda _topic, _payload: None)
        await connection.open()
        topic = f"doorstep/v1/drivers/{driver_id}/position"
        sent = {connection.publish(topic, json.dumps(fix).encode()) for fix in fixes}
        async with asyncio.timeout(STORED_WITHIN_S):
            while sent:
                sent.discard(await acked.get())
        await connection.disconnect()

    asyncio.run(send())


def _patch(env: FaultEnvironment, driver_id: str, fix: Fix) -> httpx.Response:
    token = driver_token(env.stack.paths.fleet_key(), driver_id)
    headers = {"Authorization": f"Bearer {token}"}
    return env.driver_api.patch(f"/drivers/{driver_id}/location", json=fix, headers=headers)


def instant_ms(at: datetime) -> int:
    """Return an instant as a fix states it: epoch milliseconds."""
    return round(at.timestamp() * 1000)


# -- reading ----------------------------------------------------------------------------------


def assigned_order(
    env: FaultEnvironment,
    driver_id: str,
    lon_deg: float,
    lat_deg: float,
    assigned_at: datetime | None = None,
) -> str:
    """Create an order and assign it to a driver, backdated to `assigned_at`."""
    token = driver_token(env.stack.paths.fleet_key(), driver_id)
    as_driver = {"Authorization": f"Bearer {token}"}
    command(env.driver_api, f"/drivers/{driver_id}/on-duty", headers=as_driver)
    where = {"lon_deg": lon_deg, "lat_deg": lat_deg}
    order = command(
        env.tracking, "/orders", json={"restaurant_id": RESTAURANT_ID, "destination": where}
    )
    order_id: str = order["order_id"]
    command(env.tracking, f"/orders/{order_id}/confirm")
    command(env.tracking, f"/orders/{order_id}/assign", json={"driver_id": driver_id})
    if assigned_at is not None:
        with env.database() as conn:
            conn.execute(
                "UPDATE assignment SET assigned_at = %s WHERE order_id = %s",
                [assigned_at, order_id],
            )
    return order_id


def command(client: httpx.Client, path: str, **more: Any) -> dict[str, Any]:
    """POST a command, with retries after 503. Raises HTTPStatusError for another error."""
    headers = {**more.pop("headers", {}), "Idempotency-Key": secrets.token_hex(8)}
    for _ in range(TRIES):
        answer = client.post(path, headers=headers, **more)
        if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
            break
        time.sleep(float(answer.headers["Retry-After"]))
    body: dict[str, Any] = answer.raise_for_status().json()
    return body


def processed(env: FaultEnvironment, driver_id: str, boot: str) -> set[int]:
    """Return the seqs that are stored or rejected."""
    with env.database() as conn:
        row = conn.execute(
            "SELECT stored + rejected FROM driver_boot WHERE driver_id = %s AND boot = %s",
            [driver_id, boot],
        ).fetchone()
    return {seq for span in row[0] for seq in range(span.lower, span.upper)} if row else set()


def _shown(env: FaultEnvironment, order_id: str) -> int | None:
    """Return `fix_at` of the position that a customer sees, in epoch ms."""
    position = env.tracking.get(f"/track/{order_id}").raise_for_status().json()["position"]
    if position is None:
        return None
    return instant_ms(datetime.fromisoformat(position["properties"]["fix_at"]))


def final_state_of(conn: psycopg.Connection[Any], driver_id: str, order_id: str) -> dict[str, Any]:
    """Return all that follows from a driver's fixes, without ids and arrival times."""
    state = conn.execute("SELECT state FROM orders WHERE order_id = %s", [order_id]).fetchone()
    evidence = conn.execute(
        "SELECT assignment_no, state, source, occurred_at FROM evidence WHERE order_id = %s"
        " ORDER BY 1, 2",
        [order_id],
    )
    history = conn.execute(
        "SELECT fix_at, boot, seq, lon_deg, lat_deg, accuracy_m, quarantine FROM fix_history"
        " WHERE driver_id = %s ORDER BY 1, 2, 3",
        [driver_id],
    )
    driver = conn.execute(
        "SELECT duty, state, fix_at, lon_deg, lat_deg FROM driver_state WHERE driver_id = %s",
        [driver_id],
    )
    boots = conn.execute(
        "SELECT boot, stored, rejected FROM driver_boot WHERE driver_id = %s", [driver_id]
    )
    return {
        "state": state[0] if state else None,
        "evidence": evidence.fetchall(),
        "history": history.fetchall(),
        "driver": driver.fetchall(),
        "boots": boots.fetchall(),
    }


def _words(counts: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {count:.0f}" for name, count in counts.items())


FAULTS = (
    Fault(
        26,
        "clocks + 1 day, - 1 day, year 2000",
        "rejected, the next good fix shows",
        None,
        quick=True,
        run=clocks_wrong,
    ),
    Fault(
        27,
        "fixes 3 times, shuffled, 2 h late",
        "the same final state",
        None,
        quick=True,
        run=late_shuffled_thrice,
    ),
)
