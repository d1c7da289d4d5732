"""Two doors at once, locked rows, and a database that goes away."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from uuid import UUID

import psycopg
import pytest

from doorstep import errors
from doorstep.fix import Fix, decode_position
from doorstep.store import admin, fix_writer
from doorstep.store.error_mapping import translated
from doorstep.store.pool import connect, connection, open_pool
from doorstep.store.records import Outcome
from ops.servers.postgres import running_cluster
from ops.stack.postgres import PostgresCluster
from sql import query
from tests.database import Database, cloned_database, create_template
from tests.factories import AWAY, RESTAURANT, Place, make_fix, make_walk, now, numbered
from tests.sql.fleet import Fleet


def arrange(fleet: Fleet, driver_id: str = "d1") -> UUID:
    order_id = fleet.assigned_order(driver_id)
    fleet.backdate_assignment(order_id, now() - timedelta(minutes=10))
    return order_id


def test_two_doors__each_with_half_a_dwell_pair__prove_the_arrival(fleet: Fleet) -> None:
    order_id = arrange(fleet)
    at = now()
    first = make_fix(seq=1, place=RESTAURANT, fix_at=at - timedelta(seconds=60))
    second = make_fix(seq=2, place=RESTAURANT, fix_at=at)
    with (
        fleet.database.connect("driver_events") as one,
        fleet.database.connect("driver_api") as two,
    ):
        assert fix_writer.record_fixes(one, [first]) == []
        assert fix_writer.record_fixes(two, [second]) == [Outcome(0, "parked", "locked")]
        two.commit()
        one.commit()
        assert fleet.evidence(order_id) == {}
        assert fix_writer.record_parked(one) == 1
        one.commit()
    assert fleet.state(order_id) == "at_restaurant"


def test_two_doors__writing_at_random__end_as_one_door_would(fleet: Fleet) -> None:
    order_id = arrange(fleet)
    walk = make_walk(now() - timedelta(minutes=9), (RESTAURANT, 200))

    def write_all(part: list[int]) -> None:
        with fleet.database.connect("driver_api") as conn:
            for k in part:
                while any(o.outcome == "parked" for o in fix_writer.record_fixes(conn, [walk[k]])):
                    conn.rollback()
                conn.commit()

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(write_all, ([*range(0, 50, 2)], [*range(1, 50, 2)], [*range(0, 50, 3)])))
    assert [row[2] for row in fleet.history()] == list(range(1, 51))
    assert fleet.evidence(order_id) == {(1, "at_restaurant"): walk[0][4]}
    assert [event[2] for event in fleet.events(order_id)].count("at_restaurant") == 1


def test_record_fixes__a_row_is_free_before_it_is_parked__is_read_again(fleet: Fleet) -> None:
    drivers = [f"many{n:04}" for n in range(5000)]  # the rows take a while, so that one can change
    admin.register_drivers(fleet.conn, [admin.NewDriver(name, name, None) for name in drivers])
    at = now() - timedelta(seconds=60)
    for seq in (1, 2):  # from the second on, the prefix is in driver_state
        fleet.record([make_fix(drivers[-1], seq, fix_at=at + timedelta(seconds=seq))])
    third = make_fix(drivers[-1], 3, fix_at=at + timedelta(seconds=3))
    batch = numbered([*(make_fix(name, 3, fix_at=at) for name in drivers[:-1]), third])
    with (
        fleet.database.connect("driver_events") as first,
        fleet.database.connect("driver_api") as second,
        fleet.database.connect(autocommit=True) as observer,
        ThreadPoolExecutor(1) as pool,
    ):
        assert fix_writer.record_fixes(first, [third]) == []
        fleet.run("INSERT INTO parked_fix (driver_id, fix_at) VALUES ('d1', now())")  # no short cut
        result = pool.submit(fix_writer.record_fixes, second, batch)
        while not result.done():
            try:
                observer.execute(
                    "SELECT FROM driver_state WHERE driver_id = %s FOR UPDATE NOWAIT",
                    (drivers[-2],),
                )
            except psycopg.errors.LockNotAvailable:
                break  # the batch has tried all rows but the last
        first.commit()
        # parked, if the commit came too late for the second look at the row
        assert result.result() in (
            [Outcome(4999, "duplicate", None)],
            [Outcome(4999, "parked", "locked")],
        )
        second.commit()


def test_record_fixes__a_locked_driver__parks_only_their_fixes_until_it_is_free(
    fleet: Fleet,
) -> None:
    with fleet.database.connect() as blocker:
        blocker.execute("SELECT FROM driver_state WHERE driver_id = 'd1' FOR UPDATE")
        rows = [make_fix("d1", 1), make_fix("d2", 1), make_fix("d1", 2, late_s=-1)]
        assert fleet.record(numbered(rows)) == [
            Outcome(0, "parked", "locked"),
            Outcome(2, "parked", "locked"),
        ]
        assert [row[0] for row in fleet.history()] == ["d2"]
        with fleet.conn.transaction():
            assert fix_writer.record_parked(fleet.conn) == 0
            assert fix_writer.read_watermarks(fleet.conn, [("d1", "b1")]) == []
    with fleet.conn.transaction():
        assert fix_writer.record_parked(fleet.conn) == 2
        [mark] = fix_writer.read_watermarks(fleet.conn, [("d1", "b1")])
    assert mark.seq == 2
    assert len(fleet.history()) == 3
    assert fleet.run("SELECT * FROM parked_fix") == []


def test_record_fixes__a_locked_order__parks_its_driver_as_a_whole(fleet: Fleet) -> None:
    order_id = arrange(fleet)
    other_id = arrange(fleet, "d2")
    at = now() - timedelta(minutes=5)
    walks = [make_walk(at, (RESTAURANT, 60), driver_id=driver_id) for driver_id in ("d1", "d2")]
    with fleet.database.connect() as blocker:
        blocker.execute("SELECT FROM orders WHERE order_id = %s FOR UPDATE", (order_id,))
        outcomes = fleet.record(numbered(walks[0] + walks[1]))
        assert outcomes == [Outcome(n, "parked", "locked") for n in range(len(walks[0]))]
        assert {row[0] for row in fleet.history()} == {"d2"}
        assert fleet.state(other_id) == "at_restaurant"
    fleet.record([make_fix(seq=100)])  # the next fix of that driver brings them along
    assert fleet.state(order_id) == "at_restaurant"
    assert fleet.run("SELECT * FROM parked_fix") == []


def test_record_parked__refused_ones__become_dead_letters(fleet: Fleet) -> None:
    fleet.record([make_fix(seq=1)])
    with fleet.database.connect() as blocker:
        blocker.execute("SELECT FROM driver_state WHERE driver_id = 'd1' FOR UPDATE")
        rows = [make_fix(seq=1, place=RESTAURANT), make_fix(seq=2, late_s=90_000)]
        assert len(fleet.record(numbered(rows))) == 2
    with fleet.conn.transaction():
        assert fix_writer.record_parked(fleet.conn) == 2
        letters = fix_writer.take_outbox(fleet.conn, 10)
    assert [(record.topic, record.key) for record in letters] == [("dead-letter", b"d1")] * 2
    assert {dict(record.headers)["reason"] for record in letters} == {"conflict", "too_old"}


def test_record_parked__its_dead_letter__is_a_fix_again_with_the_time_of_its_arrival(
    fleet: Fleet,
) -> None:
    row = make_fix(seq=2, late_s=90_000, accuracy_m=5.0)
    with fleet.database.connect() as blocker:
        blocker.execute("SELECT FROM driver_state WHERE driver_id = 'd1' FOR UPDATE")
        fleet.record([row])
    with fleet.conn.transaction():
        fix_writer.record_parked(fleet.conn)
        [letter] = fix_writer.take_outbox(fleet.conn, 10)
    [fix] = decode_position(letter.payload)
    assert fix == Fix("b1", 2, row[4], AWAY.lat_deg, AWAY.lon_deg, 5.0)
    received_at_ms = int(dict(letter.headers)["received_at_ms"])
    assert abs(received_at_ms - row[5].timestamp() * 1000) <= 1


def test_record_fixes__a_parked_driver_in_a_late_batch__keeps_the_first_arrival(
    fleet: Fleet,
) -> None:
    at = now()
    parked = make_fix(seq=1, fix_at=at - timedelta(hours=23), received_at=at - timedelta(hours=1))
    with fleet.database.connect() as blocker:
        blocker.execute("SELECT FROM driver_state WHERE driver_id = 'd1' FOR UPDATE")
        fleet.record([parked])
    again = make_fix(seq=1, fix_at=at - timedelta(hours=23), received_at=at)
    assert fleet.record([again]) == [Outcome(0, "duplicate", None)]
    assert fleet.history("received_at") == [(at - timedelta(hours=1),)]


def test_assign__nearest_for_two_requests_at_once__never_takes_one_driver_twice(
    fleet: Fleet,
) -> None:
    names = [f"n{k}" for k in range(6)]
    fleet.add_drivers(*names)
    fleet.record(
        numbered([make_fix(name, place=RESTAURANT.north(100 * k)) for k, name in enumerate(names)])
    )
    orders = []
    for _ in range(6):
        order_id = fleet.create_order()["order_id"]
        fleet.command_order(order_id, "confirm")
        orders.append(order_id)
    gate = threading.Barrier(6)

    def assign(order_id: UUID) -> str:
        with fleet.database.connect("tracking_api") as conn:
            gate.wait()
            row = conn.execute(
                query("command_order_as_staff"),
                {
                    "order_id": order_id,
                    "command": "assign",
                    "name": "anna",
                    "driver_id": None,
                    "idempotency_key": None,
                },
            ).fetchone()
            assert row is not None
            return str(row[3])

    with ThreadPoolExecutor(6) as pool:
        assert sorted(pool.map(assign, orders)) == names


def test_assign__nearest__is_the_nearest_available_with_a_recent_position(fleet: Fleet) -> None:
    fleet.limit_orders(1)
    fleet.add_drivers("far", "near", "off", "old", "busy", "nearest")
    places = {"far": 5_000, "near": 900, "off": 10, "old": 20, "busy": 30, "nearest": 400}
    for name, metres in places.items():
        late_s = 301 if name == "old" else 1
        fleet.record([make_fix(name, place=RESTAURANT.north(metres), late_s=late_s)])
    fleet.command_driver("off", "off_duty")
    fleet.assigned_order("busy")
    got = []
    for _ in range(3):
        order_id = fleet.create_order()["order_id"]
        fleet.command_order(order_id, "confirm")
        got.append(fleet.command_order(order_id, "assign")["driver_id"])
    assert got == ["nearest", "near", "far"]
    order_id = fleet.create_order()["order_id"]
    fleet.command_order(order_id, "confirm")
    with pytest.raises(errors.NoDriverAvailable):
        fleet.command_order(order_id, "assign")


def test_nearest_drivers__by_the_cells_that_are_looked_at__are_those_by_all_distances(
    fleet: Fleet,
) -> None:
    chosen = random.Random(4)
    drivers = [f"n{k}" for k in range(60)]
    fleet.add_drivers(*drivers, on_duty=False)
    fleet.run("UPDATE driver_state SET duty = 'on_duty', state = 'available'")
    reach_deg = [10 ** chosen.uniform(-5, -0.5) for _ in drivers]  # 1 m to 35 km
    places = [
        Place(11.26 + chosen.uniform(-r, r), 43.77 + chosen.uniform(-r, r)) for r in reach_deg
    ]
    fleet.record(
        numbered([make_fix(one, place=at) for one, at in zip(drivers, places, strict=True)])
    )
    distance = "ground_distance_m(d.lon_deg, d.lat_deg, %s, %s)"
    for lon_deg, lat_deg in [(11.26, 43.77), (11.2599, 43.7699), places[0], places[1]]:
        by_all = fleet.run(
            f"SELECT driver_id FROM driver_state d WHERE {distance} < 50000"
            f" ORDER BY {distance}, driver_id",
            *[lon_deg, lat_deg] * 2,
        )
        for at_most in (1, 5, 60):
            near = fleet.run(
                "SELECT driver_id FROM nearest_drivers_v1(%s, %s, %s)", lon_deg, lat_deg, at_most
            )
            assert near == by_all[:at_most]


def test_assign__nearest_is_in_a_batch_just_now__is_still_the_one(fleet: Fleet) -> None:
    fleet.record([make_fix("d1", place=RESTAURANT), make_fix("d2", n=1)])
    order_id = fleet.create_order()["order_id"]
    fleet.command_order(order_id, "confirm")
    with fleet.database.connect() as batch:
        batch.execute("SELECT FROM driver_state FOR NO KEY UPDATE")
        release = threading.Timer(0.3, batch.rollback)
        release.start()
        assert fleet.command_order(order_id, "assign")["driver_id"] == "d1"
        release.join()


def test_assign__nearest_is_locked_for_long__takes_the_next(fleet: Fleet) -> None:
    fleet.record([make_fix("d1", place=RESTAURANT), make_fix("d2", n=1)])
    order_id = fleet.create_order()["order_id"]
    fleet.command_order(order_id, "confirm")
    with fleet.database.connect() as blocker:
        blocker.execute("SELECT FROM driver_state WHERE driver_id = 'd1' FOR UPDATE")
        assert fleet.command_order(order_id, "assign")["driver_id"] == "d2"


def test_assign__named_driver__must_exist_be_on_duty_and_free(fleet: Fleet) -> None:
    fleet.limit_orders(1)
    fleet.assigned_order("d1")
    fleet.command_driver("d2", "off_duty")
    order_id = fleet.create_order()["order_id"]
    fleet.command_order(order_id, "confirm")
    for driver_id, refusal in (
        ("d1", errors.DriverUnavailable),
        ("d2", errors.DriverUnavailable),
        ("unknown-driver", errors.UnknownDriver),
    ):
        with pytest.raises(refusal):
            fleet.command_order(order_id, "assign", driver_id=driver_id)
    assert fleet.state(order_id) == "confirmed"


def test_command__on_a_locked_driver__says_so_in_time(fleet: Fleet) -> None:
    order_id = fleet.assigned_order()
    with fleet.database.connect() as blocker, translated():
        blocker.execute("SELECT FROM driver_state WHERE driver_id = 'd1' FOR UPDATE")
        fleet.run("SET lock_timeout = '200ms'")
        with pytest.raises(errors.StoreUnavailable):
            fleet.command_order(order_id, "pick_up")


def test_commands_and_fixes__at_once_on_one_fleet__never_deadlock(fleet: Fleet) -> None:
    names = [f"m{k}" for k in range(8)]
    fleet.add_drivers(*names)
    stop = threading.Event()
    seq = 0

    def keep_writing(step: int) -> int:
        written = 0
        with fleet.database.connect("driver_events") as conn:
            while not stop.is_set():
                written += 1
                rows = [
                    make_fix(name, written, boot=f"b{step}", place=RESTAURANT) for name in names
                ]
                fix_writer.record_fixes(conn, numbered(rows[::step]))
                conn.commit()
        return written

    def work(part: list[str]) -> None:
        worker = Fleet(fleet.database)
        try:
            for name in part * 4:
                order_id = worker.assigned_order(name)
                worker.command_order(order_id, "reassign", driver_id=name + "x")
                worker.command_order(order_id, "pick_up")
                worker.command_order(order_id, "deliver")
        finally:
            worker.close()

    fleet.add_drivers(*(f"{name}x" for name in names))
    with ThreadPoolExecutor(4) as pool:
        writers = [pool.submit(keep_writing, step) for step in (1, -1)]
        try:
            list(pool.map(work, (names[:4], names[4:])))
        finally:
            stop.set()
        seq = sum(writer.result() for writer in writers)
    assert seq > 0
    states = fleet.run("SELECT DISTINCT state FROM orders")
    assert [row["state"] for row in states] == ["delivered"]


def test_advance_offsets__held_by_a_stopped_consumer__is_unavailable_then_lost(
    fleet: Fleet,
) -> None:
    url = fleet.database.url("driver_events")
    with connect(url) as stopped, connect(url, lock_timeout_ms=100) as conn:
        fix_writer.open_offsets(stopped, "c", "t", [0])
        stopped.commit()
        fix_writer.advance_offsets(stopped, "c", "t", {0: (0, 5)})  # and stops, before its commit
        with pytest.raises(errors.StoreUnavailable):
            fix_writer.advance_offsets(conn, "c", "t", {0: (0, 9)})
        conn.rollback()
        stopped.commit()
        with pytest.raises(errors.OffsetLost):
            fix_writer.advance_offsets(conn, "c", "t", {0: (0, 9)})


def test_idle_in_transaction__a_stopped_writer__frees_its_locks(fleet: Fleet) -> None:
    with connect(fleet.database.url("driver_events")) as conn:
        conn.execute("SET idle_in_transaction_session_timeout = '100ms'")
        conn.commit()
        fix_writer.record_fixes(conn, [make_fix()])
        threading.Event().wait(1.0)
        with pytest.raises(errors.StoreUnavailable):
            fix_writer.record_fixes(conn, [make_fix(seq=2)])
    assert fleet.history() == []


async def test_pool__no_free_connection__is_unavailable_within_two_seconds(
    database: Database,
) -> None:
    pool = await open_pool(database.url("tracking_api"), 1)
    try:
        async with connection(pool):
            with pytest.raises(errors.StoreUnavailable):
                async with connection(pool):
                    pass
    finally:
        await pool.close()


@pytest.fixture(scope="module")
def own_cluster() -> Iterator[PostgresCluster]:
    """A cluster that a test may kill without hurting the others."""
    with running_cluster() as cluster:
        create_template(cluster)
        yield cluster


async def test_store__the_server_is_killed_under_a_writer__is_unavailable_and_a_retry_works(
    own_cluster: PostgresCluster,
) -> None:
    with cloned_database(own_cluster) as database:
        fleet = Fleet(database)
        fleet.add_drivers("d1")
        conn = connect(database.url("driver_events"))
        pool = await open_pool(database.url("driver_api"), 2)
        async with connection(pool) as api:
            assert await fix_writer.record_fixes_async(api, [make_fix(seq=1)]) == []
        fix_writer.record_fixes(conn, [make_fix(seq=2, late_s=-1)])
        own_cluster.kill()
        fleet.close()
        with pytest.raises(errors.StoreUnavailable), translated():
            conn.commit()
        with pytest.raises(errors.StoreUnavailable):
            connect(database.url("driver_events"))
        conn.close()
        with pytest.raises(errors.StoreUnavailable):
            async with connection(pool) as api:
                await fix_writer.record_fixes_async(api, [make_fix(seq=3)])
        own_cluster.start()
        conn = connect(database.url("driver_events"))
        assert fix_writer.record_fixes(conn, [make_fix(seq=2, late_s=-1)]) == []
        conn.commit()
        for _ in range(50):
            try:
                async with connection(pool) as api:
                    assert await fix_writer.record_fixes_async(api, [make_fix(seq=3)]) == []
                break
            except errors.StoreUnavailable:
                continue
        else:
            pytest.fail("the pool did not recover")
        await pool.close()
        conn.close()
        with database.connect() as owner:
            rows = owner.execute("SELECT seq FROM fix_history ORDER BY seq").fetchall()
        # fsync is off here, so the test says nothing about durability
        assert [row[0] for row in rows][-2:] == [2, 3]


def test_translate__a_fault_of_ours__stays_a_psycopg_error(fleet: Fleet) -> None:
    with pytest.raises(psycopg.errors.UndefinedTable):
        fleet.run("SELECT * FROM nowhere")
