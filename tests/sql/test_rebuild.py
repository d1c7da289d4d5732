"""`./run rebuild`: what follows from the record, against what stands."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from uuid import UUID, uuid4

import psycopg
import pytest

from ops.commands import rebuild_command as command
from ops.commands.rebuild import Rebuilder
from ops.commands.rebuild_command import rebuild
from ops.stack.postgres import PostgresCluster
from tests.database import Database, cloned_database
from tests.factories import CUSTOMER, RESTAURANT, make_walk, now
from tests.sql.fleet import Fleet

Rebuild = Callable[..., list[str]]


@pytest.fixture(scope="module")
def database(postgres_cluster: PostgresCluster) -> Iterator[Database]:
    """One for all: what a test tampers with it has mended."""
    with cloned_database(postgres_cluster) as database:
        yield database


@pytest.fixture(scope="module")
def fleet(database: Database) -> Iterator[Fleet]:
    fleet = Fleet(database)
    fleet.add_drivers("d1", "d2")
    yield fleet
    fleet.close()


@pytest.fixture(scope="module")
def order_id(fleet: Fleet) -> UUID:
    """An order of d1 that fixes have brought to its customer, one of d2 that was given up."""
    order_id = fleet.assigned_order("d1")
    fleet.backdate_assignment(order_id, now() - timedelta(minutes=20))
    way = make_walk(
        now() - timedelta(minutes=15),
        (RESTAURANT, 100),
        (RESTAURANT.north(600), 100),
        (CUSTOMER, 100),
    )
    fleet.record(way)
    given_up = fleet.assigned_order("d2")
    fleet.command_order(given_up, "decline", actor="driver", actor_id="d2")
    fleet.command_driver("d2", "on_break")
    return order_id


@pytest.fixture
def run_rebuild(database: Database) -> Rebuild:
    """Compare, and say what differs, a line each."""

    def run(**options: bool) -> list[str]:
        with database.connect() as conn:
            rebuilt, mended = rebuild(Rebuilder(conn), **options)  # type: ignore[arg-type]
        assert mended == (len(rebuilt.differences) if options.get("apply") else 0)
        return [one.line() for one in rebuilt.differences]

    return run


def tamper(database: Database, statement: str, *parameters: object) -> None:
    """Change rows past every trigger, as a superuser can."""
    with psycopg.connect(
        database.superuser_url, autocommit=True, options="-c search_path=doorstep,public"
    ) as conn:
        conn.execute("SET session_replication_role = replica")
        assert conn.execute(statement, parameters).rowcount == 1


def contents(database: Database) -> dict[str, list[str]]:
    """Every row of the tables that a rebuild could touch."""
    tables = "orders assignment evidence order_event driver_state driver_cell driver_boot outbox"
    return {
        table: sorted(str(row) for row in database.rows(f"SELECT * FROM {table}"))
        for table in tables.split()
    }


def test_rebuild__nothing_tampered_with__finds_nothing(
    order_id: UUID, run_rebuild: Rebuild, fleet: Fleet
) -> None:
    assert fleet.state(order_id) == "at_customer"
    assert run_rebuild() == []


TAMPERED = {
    "evidence gone": (
        "DELETE FROM evidence WHERE state = 'arriving' AND order_id = %s",
        ["evidence {order} 1 arriving: expected occurred_at"],
    ),
    "evidence of another instant": (
        "UPDATE evidence SET occurred_at = occurred_at + interval '1 s'"
        " WHERE state = 'picked_up' AND order_id = %s",
        ["evidence {order} 1 picked_up: expected occurred_at"],
    ),
    "what is known of an assignment": (
        "UPDATE assignment SET at_customer_at = NULL WHERE order_id = %s",
        ["assignment {order} 1: expected at_customer_at"],
    ),
    "a state set back": (
        "UPDATE orders SET state = 'assigned' WHERE order_id = %s",
        ["order {order}: expected state at_customer, actual state assigned"],
    ),
    "a state too far": (
        "UPDATE orders SET state = 'delivered', ended_at = now() WHERE order_id = %s",
        ["order {order}: expected ended_at None, state at_customer, actual ended_at"],
    ),
    "a driver let go": (
        "UPDATE driver_state SET state = 'available', order_id = NULL WHERE order_id = %s",
        ["driver d1: expected order_id {order}, state at_customer, actual"],
    ),
    "an older position": (
        "UPDATE driver_state SET lat_deg = lat_deg + 1, fix_at = fix_at - interval '1 min'"
        " WHERE order_id = %s",
        ["position d1: expected fix_at"],
    ),
    "a gap in the ledger": (
        "SELECT boot_seqs__replace(driver_id, boot,"
        " stored - int8multirange(int8range(5, 9)), rejected) FROM driver_boot"
        " WHERE %s::text <> '' AND driver_id = 'd1'",
        ["boot d1 b1: expected stored"],
    ),
    "a fix that the ledger alone has": (
        "SELECT boot_seqs__replace(driver_id, boot,"
        " stored + int8multirange(int8range(5000, 5001)), rejected) FROM driver_boot"
        " WHERE %s::text <> '' AND driver_id = 'd1'",
        ["boot d1 b1: expected stored"],
    ),
    "a window left open": (
        "UPDATE assignment SET ended_at = NULL, ended_by = NULL, stop_no = 1"
        " WHERE order_id <> %s AND driver_id = 'd2'",
        ["assignment "],
    ),
}


@pytest.mark.parametrize("what", sorted(TAMPERED))
def test_rebuild__tampered_with__names_exactly_that_and_apply_mends_it(
    what: str, order_id: UUID, run_rebuild: Rebuild, database: Database
) -> None:
    before = contents(database)
    statement, expected = TAMPERED[what]
    tamper(database, statement, order_id)
    tampered = contents(database)
    assert tampered != before
    found = run_rebuild()
    assert len(found) == len(expected), found
    for line, beginning in zip(found, expected, strict=True):
        assert line.startswith(beginning.format(order=order_id)), line
    assert contents(database) == tampered, "a rebuild that was not told to has written"
    assert run_rebuild(apply=True) == found
    assert run_rebuild() == []
    assert without_writing_down(contents(database)) == without_writing_down(before)


def without_writing_down(tables: dict[str, list[str]]) -> dict[str, list[str]]:
    """Evidence that was written again has another recorded_at; a prefix may be in either table."""
    evidence = [row.split("'recorded_at'")[0] for row in tables["evidence"]]
    drivers = [row.split("'settled_to'")[0] for row in tables["driver_state"]]
    return tables | {"evidence": sorted(evidence), "driver_state": sorted(drivers)}


def test_rebuild__an_event_that_was_never_shown__is_shown_by_apply(
    order_id: UUID, run_rebuild: Rebuild, database: Database, fleet: Fleet
) -> None:
    tamper(
        database, "DELETE FROM order_event WHERE state = 'at_customer' AND order_id = %s", order_id
    )
    tamper(
        database,
        "UPDATE orders SET state = 'arriving', order_seq = order_seq - 1 WHERE order_id = %s",
        order_id,
    )
    assert len(run_rebuild(apply=True)) == 1
    assert fleet.state(order_id) == "at_customer"
    assert fleet.events(order_id)[-1][2:] == ("at_customer", "gps")
    assert run_rebuild() == []


def test_rebuild_command__as_an_operator_calls_it(
    order_id: UUID,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("DATABASE_ADMIN_URL", database.url())
    assert command.main([]) == 0
    assert "2 orders" in capsys.readouterr().out
    tamper(database, "DELETE FROM evidence WHERE state = 'arriving' AND order_id = %s", order_id)
    assert command.main(["--driver", "d2"]) == 0
    capsys.readouterr()
    assert command.main(["--driver", "d1", "--json"]) == 1
    answer = json.loads(capsys.readouterr().out)
    assert [one["key"]["state"] for one in answer["differences"]] == ["arriving"]
    assert (answer["orders"], answer["drivers"], answer["repaired"]) == (1, 1, 0)
    assert command.main(["--order", str(order_id), "--apply"]) == 0
    assert command.main(["--order", str(order_id)]) == 0
    assert command.main(["--order", str(uuid4())]) == 2
    assert "not found" in capsys.readouterr().err


def test_rebuild__a_sealed_window__is_taken_as_it_stands(
    order_id: UUID, run_rebuild: Rebuild, database: Database
) -> None:
    tamper(database, "UPDATE history_bounds SET sealed_before = now() - interval '10 min'")
    with database.connect(autocommit=True) as conn:
        conn.execute("DELETE FROM fix_history WHERE fix_at < now() - interval '10 min'")
    assert run_rebuild() == []
