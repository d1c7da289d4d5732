"""driver_api on a real database, and as a real process."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import httpx
import psycopg
import pytest

from doorstep.store.pool import connection
from driver_api.queries import open_queries
from ops.stack.addresses import any_free_port
from tests.database import Database
from tests.integration.http_services import (
    CUSTOMER,
    RESTAURANT,
    STAFF,
    Relay,
    answers,
    as_driver,
    create_order,
    logged,
    make_fix,
    on_duty_at,
    open_driver_api,
    populate,
    problem_of,
    report,
    running,
    stop,
)


async def test_patch_location__200__means_committed(driver_api, database):
    fix = make_fix(boot="b1", seq=1, accuracy_m=5, speed_mps=3, heading_deg=360, battery=0.5)
    answer = await driver_api.patch("/drivers/d1/location", json=fix, headers=as_driver("d1"))
    assert answer.json()["outcome"] == "committed"
    [row] = database.rows("SELECT * FROM fix_history")
    assert (row["driver_id"], row["boot"], row["seq"]) == ("d1", "b1", 1)
    assert (row["lon_deg"], row["lat_deg"], row["heading_deg"]) == (*RESTAURANT, 0)


@pytest.mark.parametrize("identity", [{}, {"boot": "b1", "seq": 7}])
async def test_patch_location__twice__is_one_row_and_twice_200(driver_api, database, identity):
    fix = make_fix(**identity)
    outcomes = []
    for _ in range(2):
        answer = await driver_api.patch("/drivers/d1/location", json=fix, headers=as_driver("d1"))
        assert answer.status_code == 200
        outcomes.append(answer.json()["outcome"])
    assert outcomes == ["committed", "duplicate"]
    assert database.value("SELECT count(*) FROM fix_history") == 1


async def test_patch_location__same_identity_other_place__is_409_and_changes_nothing(
    driver_api, database
):
    fix = make_fix(boot="b1", seq=1)
    await driver_api.patch("/drivers/d1/location", json=fix, headers=as_driver("d1"))
    other = fix | {"lat_deg": 43.9}
    answer = await driver_api.patch("/drivers/d1/location", json=other, headers=as_driver("d1"))
    problem_of(answer, 409, "conflicting-fix")
    [row] = database.rows("SELECT lat_deg FROM fix_history")
    assert row["lat_deg"] == RESTAURANT[1]


@pytest.mark.parametrize(
    ("place", "members", "reason"),
    [
        ((0.0, 0.0), {}, "null_island"),
        ((43.77, 11.25), {}, "swapped"),
        (RESTAURANT, {"accuracy_m": 201}, "inaccurate"),
    ],
)
async def test_patch_location__suspicious__is_quarantined_and_shown_nowhere(
    driver_api, tracking_api, place, members, reason
):
    await on_duty_at(driver_api, "d1", RESTAURANT, ago_s=5)
    answer = await report(driver_api, "d1", place, **members)
    assert (answer["outcome"], answer["reason"]) == ("quarantined", reason)
    shown = (await tracking_api.get("/drivers/d1", headers=STAFF)).json()
    assert shown["position"]["geometry"]["coordinates"] == list(RESTAURANT)


async def test_post_locations__bad_and_good_fixes__commits_the_good_ones(driver_api, database):
    fixes = [make_fix(ago_s=n, boot="b1", seq=100 - n) for n in range(3)]
    fixes.append({"boot": "b1", "seq": 50, "lat_deg": 1})
    fixes.append(make_fix(ago_s=-300, boot="b1", seq=51))
    fixes.append(fixes[0])
    fixes.append(fixes[1] | {"lat_deg": 43.9})
    answer = await driver_api.post(
        "/drivers/d1/locations", json={"fixes": fixes}, headers=as_driver("d1")
    )
    body = answer.json()
    assert [(one["outcome"], one["reason"]) for one in body["outcomes"]] == [
        ("committed", None),
        ("committed", None),
        ("committed", None),
        ("rejected", "missing_field"),
        ("rejected", "in_the_future"),
        ("duplicate", None),
        ("conflict", None),
    ]
    assert database.value("SELECT count(*) FROM fix_history") == 3
    # refused ones pass the watermark too: they need not be sent again
    assert database.value("SELECT rejected::text FROM driver_boot") == "{[50,52)}"


async def test_post_locations__256_fixes__are_one_batch(driver_api, database):
    fixes = [make_fix(ago_s=300 - n, boot="b1", seq=n + 1) for n in range(256)]
    answer = await driver_api.post(
        "/drivers/d1/locations", json={"fixes": fixes}, headers=as_driver("d1")
    )
    assert answer.json()["committed"] == 256
    assert database.value("SELECT stored::text FROM driver_boot") == "{[1,257)}"


async def test_patch_location__unknown_driver__is_404_for_staff(driver_api):
    answer = await driver_api.patch(
        "/drivers/unknown-driver/location", json=make_fix(), headers=STAFF
    )
    problem_of(answer, 404, "unknown-driver")


async def test_patch_location__row_locked_briefly__is_committed(driver_api, database):
    with database.connect() as holder:
        holder.execute("SELECT FROM driver_state WHERE driver_id = 'd1' FOR UPDATE")
        waiting = asyncio.create_task(report(driver_api, "d1", RESTAURANT))
        await asyncio.sleep(0.2)
        assert not waiting.done()
        holder.rollback()
        assert (await waiting)["outcome"] == "committed"


async def test_patch_location__row_locked__is_503_and_other_drivers_are_unaffected(
    driver_api, database
):
    with database.connect() as holder:
        holder.execute("SELECT FROM driver_state WHERE driver_id = 'd1' FOR UPDATE")
        answer = await driver_api.patch(
            "/drivers/d1/location", json=make_fix(), headers=as_driver("d1")
        )
        problem_of(answer, 503, "driver-locked")
        assert "retry-after" in answer.headers
        assert (await report(driver_api, "d2", RESTAURANT))["outcome"] == "committed"
    assert database.value("SELECT count(*) FROM parked_fix") == 0
    assert (await report(driver_api, "d1", RESTAURANT))["outcome"] == "committed"


async def test_patch_location__over_the_quota__is_429_and_writes_nothing(driver_api, database):
    database.rows("UPDATE doorstep.limits SET quota_burst = 256")
    fixes = [make_fix(ago_s=300 - n, boot="b1", seq=n + 1) for n in range(256)]
    await driver_api.post("/drivers/d1/locations", json={"fixes": fixes}, headers=as_driver("d1"))
    more = {"fixes": [make_fix(ago_s=n, boot="b1", seq=300 - n) for n in range(40)]}
    answer = await driver_api.post("/drivers/d1/locations", json=more, headers=as_driver("d1"))
    problem_of(answer, 429, "too-many-requests")
    assert int(answer.headers["retry-after"]) >= 1
    assert database.value("SELECT count(*) FROM doorstep.fix_history") == 256
    assert database.value("SELECT count(*) FROM doorstep.parked_fix") == 0
    assert (await report(driver_api, "d2", RESTAURANT))["outcome"] == "committed"


async def test_patch_location__backends_killed__succeeds_after_at_most_one_retry(
    driver_api, database
):
    await report(driver_api, "d1", RESTAURANT)
    _kill_backends(database)
    fix = make_fix(boot="b1", seq=1)
    for _ in range(2):
        answer = await driver_api.patch("/drivers/d1/location", json=fix, headers=as_driver("d1"))
        if answer.status_code == 200:
            break
        problem_of(answer, 503, "store-unavailable")
        await asyncio.sleep(int(answer.headers["retry-after"]))
    assert answer.json()["outcome"] == "committed"
    assert database.value("SELECT count(*) FROM fix_history WHERE boot = 'b1'") == 1


async def test_pool__exhausted__is_503_within_2_s_and_recovers(database):
    populate(database)
    async with (
        open_queries(database.url("driver_api"), 1) as store,
        open_driver_api(database, store) as driver_api,
    ):
        await report(driver_api, "d1", RESTAURANT)
        async with connection(store.pool):
            answer = await driver_api.patch(
                "/drivers/d1/location", json=make_fix(), headers=as_driver("d1")
            )
            problem_of(answer, 503, "store-unavailable")
        assert (await report(driver_api, "d1", RESTAURANT))["outcome"] == "committed"


async def test_duty__repeated_commands__succeed(driver_api):
    states = []
    for command in ("on-duty", "on-duty", "on-break", "on-duty", "off-duty", "off-duty"):
        answer = await driver_api.post(f"/drivers/d1/{command}", headers=as_driver("d1"))
        assert answer.status_code == 200
        states.append(answer.json()["state"])
    assert states == ["available", "available", "on_break", "available", "off_duty", "off_duty"]


async def test_on_break__from_off_duty__is_409_with_what_is_allowed(driver_api):
    answer = await driver_api.post("/drivers/d1/on-break", headers=as_driver("d1"))
    document = problem_of(answer, 409, "illegal-transition")
    assert (document["current_state"], document["allowed"]) == ("off_duty", ["on_duty"])


async def test_order__commands_of_its_driver__pick_up_and_deliver(driver_api, tracking_api):
    await on_duty_at(driver_api, "d1", RESTAURANT)
    order = await create_order(tracking_api, "confirm", "assign")
    assert order["driver_id"] == "d1"
    mine = (await driver_api.get("/drivers/d1", headers=as_driver("d1"))).json()
    assert mine["order"]["order_id"] == order["order_id"]
    assert mine["order"]["restaurant"]["name"] == "Da Mario"
    assert mine["order"]["destination"]["lon_deg"] == CUSTOMER[0]
    for command, state in (("picked-up", "picked_up"), ("delivered", "delivered")):
        answer = await driver_api.post(
            f"/drivers/d1/orders/{order['order_id']}/{command}", headers=as_driver("d1")
        )
        assert (answer.status_code, answer.json()["state"]) == (200, state)
    mine = (await driver_api.get("/drivers/d1", headers=as_driver("d1"))).json()
    assert (mine["state"], mine["order"]) == ("available", None)


async def test_delivered__before_pick_up__is_409_with_what_is_allowed(driver_api, tracking_api):
    await on_duty_at(driver_api, "d1", RESTAURANT)
    order = await create_order(tracking_api, "confirm", "assign")
    answer = await driver_api.post(
        f"/drivers/d1/orders/{order['order_id']}/delivered", headers=as_driver("d1")
    )
    document = problem_of(answer, 409, "illegal-transition")
    assert document["current_state"] == "assigned"
    assert set(document["allowed"]) == {"decline", "pick_up"}


async def test_commands__on_another_drivers_order_or_none__are_the_same_404(
    driver_api, tracking_api
):
    await on_duty_at(driver_api, "d1", RESTAURANT)
    order = await create_order(tracking_api, "confirm", "assign")
    for order_id in (order["order_id"], uuid4()):
        answer = await driver_api.post(
            f"/drivers/d2/orders/{order_id}/picked-up", headers=as_driver("d2")
        )
        problem_of(answer, 404, "unknown-order")


async def test_decline__twice_under_one_key__is_once(driver_api, tracking_api, database):
    await on_duty_at(driver_api, "d1", RESTAURANT)
    order = await create_order(tracking_api, "confirm", "assign")
    address = f"/drivers/d1/orders/{order['order_id']}/decline"
    headers = as_driver("d1") | {"Idempotency-Key": "k1"}
    first, second = [await driver_api.post(address, headers=headers) for _ in range(2)]
    assert (first.status_code, first.json()) == (second.status_code, second.json())
    assert first.json()["state"] == "confirmed"
    assert database.value("SELECT count(*) FROM order_command WHERE command = 'decline'") == 1
    again = await driver_api.post(address.replace("decline", "picked-up"), headers=headers)
    problem_of(again, 422, "idempotency-conflict")


async def test_process__started_before_its_database__logs_it_waits_and_stops_cleanly(
    postgres_cluster, database
):
    populate(database)
    database_port, port = any_free_port(), any_free_port()
    url = database.url("driver_api").replace(f":{postgres_cluster.port}/", f":{database_port}/")
    settings = {
        "DATABASE_URL": url,
        "DRIVER_API_BIND": f"127.0.0.1:{port}",
        "DRIVER_API_INTERNAL_BIND": "127.0.0.1:0",
        "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",  # no server listens there
    }
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=10) as client:
        with running("driver_api", **settings) as process:
            assert await answers(client, "/healthz", 200)
            assert await answers(client, "/readyz", 503)
            answer = await client.patch(
                "/drivers/d1/location", json=make_fix(), headers=as_driver("d1")
            )
            problem_of(answer, 503, "store-unavailable")
            assert "retry-after" in answer.headers
            async with Relay(postgres_cluster.port, database_port):
                assert await answers(client, "/readyz", 200)
                for _ in range(20):  # requests succeed without Kafka
                    answer = await client.patch(
                        "/drivers/d1/location", json=make_fix(), headers=as_driver("d1")
                    )
                    assert answer.status_code == 200, answer.text
                early_log = await logged(process, "database_ready")
                status, log = await asyncio.to_thread(stop, process)
    assert status == 0
    assert '"waiting_for_database"' in early_log
    assert '"stopped"' in log


async def test_process__bad_setting__stops_with_one_line_that_names_it():
    with running("driver_api", DATABASE_URL="x", DRIVER_API_BIND="nonsense") as process:
        _, log = await asyncio.to_thread(process.communicate, timeout=60)
    assert process.returncode == 78
    assert log.decode().count("\n") == 1
    assert "DRIVER_API_BIND" in log.decode()


def _kill_backends(database: Database) -> None:
    with psycopg.connect(database.superuser_url, autocommit=True) as conn:
        killed = conn.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE usename = 'driver_api' AND datname = current_database()"
        ).fetchall()
    assert killed
