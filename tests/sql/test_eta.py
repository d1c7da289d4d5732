"""What arrivals are learned from, and where the model lies in between."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from data import BUNDLED_CITY
from doorstep.store import commands
from doorstep.store.pool import connection, open_pool
from eta.codec import model_to_json
from eta.model import HOURS, STREET_CLASSES, Band, EtaModel, Phase
from ops.commands import learn_command
from ops.commands.learn_command import read_deliveries, store_model
from tests.database import Database
from tests.factories import CUSTOMER, RESTAURANT, Place, make_fix, now
from tests.sql.fleet import Fleet, connect_as
from tracking_api.track.eta_queries import EtaQueries

HALF_WAY = Place(11.2630, 43.7750)
METRES = [[1.0] * HOURS for _ in STREET_CLASSES]
LEARNED = EtaModel(
    learned_at=datetime(2026, 1, 12, 12, tzinfo=UTC),
    rides=42,
    driver_pace={"d1": 1.25, "removed-driver": 0.9},
    bands=(Band(Phase.TO_CUSTOMER, float("inf"), 0.8, 1.0, 1.3, 50),),
)


def deliver(fleet: Fleet) -> None:
    """An assignment that began 900 s ago, and the fixes that prove its steps, 10 s apart."""
    order_id = fleet.assigned_order()
    fleet.backdate_assignment(order_id, now() - timedelta(seconds=900))
    places = [(RESTAURANT, 850, 790), (HALF_WAY, 700, 640), (CUSTOMER, 300, 230)]
    ages = [(place, age) for place, since, until in places for age in range(since, until - 1, -10)]
    fleet.record(
        make_fix(seq=seq, n=seq, place=place, late_s=age)
        for seq, (place, age) in enumerate(ages, start=1)
    )
    fleet.command_order(order_id, "deliver")


def test_deliveries__one_with_its_steps_proved__comes_with_its_trail_thinned(fleet: Fleet) -> None:
    deliver(fleet)
    with fleet.database.connect("doorstep_owner") as conn:
        (found,) = read_deliveries(conn, now() - timedelta(days=1), 10, [BUNDLED_CITY])
        assert read_deliveries(conn, now(), 10, [BUNDLED_CITY]) == []
    assert found.driver_id == "d1"
    assert (found.restaurant, found.door) == (tuple(RESTAURANT), tuple(CUSTOMER))
    assert found.at_restaurant_at is not None
    assert found.assigned_at < found.at_restaurant_at < found.picked_up_at < found.at_customer_at
    assert (found.at_customer_at - found.picked_up_at).total_seconds() == pytest.approx(400, abs=1)
    assert 6 <= len(found.trail) <= 8  # of 14 fixes before the arrival, one in 20 s
    assert all(one.at < found.at_customer_at for one in found.trail)


def test_deliveries__an_order_still_under_way__is_none_yet(fleet: Fleet) -> None:
    fleet.assigned_order()
    with fleet.database.connect("doorstep_owner") as conn:
        assert read_deliveries(conn, now() - timedelta(days=1), 10, [BUNDLED_CITY]) == []


@pytest.mark.parametrize("role", ["tracking_api", "customer"])
async def test_model__once_stored__is_what_tracking_api_reads(
    fleet: Fleet, database: Database, role: str
) -> None:
    pool = await open_pool(database.url(role), 1)
    store = EtaQueries(pool)
    try:
        assert await store.read_eta_model(0) is None
        with database.connect("doorstep_owner") as conn:
            model_id = store_model(conn, model_to_json(LEARNED, METRES))
        found = await store.read_eta_model(0)
        assert found is not None
        assert (found.model_id, found.rides, found.learned_at) == (model_id, 42, LEARNED.learned_at)
        assert found.street_mps == LEARNED.street_mps
        assert found.driver_pace == {"d1": 1.25}
        assert found.band(Phase.TO_CUSTOMER, 600).p90 == 1.3
        async with connection(pool) as conn:
            assert await commands.read_eta_model(conn, model_id) is None
    finally:
        await pool.close()


def test_model__the_twelfth_version__leaves_the_ten_newest(fleet: Fleet) -> None:
    with fleet.database.connect("doorstep_owner") as conn:
        ids = [store_model(conn, model_to_json(LEARNED, METRES)) for _ in range(12)]
        kept = conn.execute("SELECT DISTINCT model_id FROM street_speed ORDER BY 1").fetchall()
    assert [row[0] for row in kept] == ids[2:]


def test_model__written_by_a_service__is_refused(fleet: Fleet, database: Database) -> None:
    with (
        connect_as(database, "tracking_api") as conn,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        store_model(conn, model_to_json(LEARNED, METRES))


def test_learn__the_command__adds_a_version_and_tells_of_it(
    fleet: Fleet,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("DATABASE_ADMIN_URL", database.url("doorstep_owner"))
    deliver(fleet)
    assert learn_command.main([]) == 1
    assert "at least 30 are needed" in capsys.readouterr().err
    monkeypatch.setattr(learn_command, "MIN_DELIVERIES", 1)
    assert learn_command.main(["--dry-run"]) == 0
    assert fleet.run("SELECT FROM eta_model") == []
    assert learn_command.main(["--json"]) == 0
    assert fleet.run("SELECT rides FROM eta_model") == [{"rides": 1}]
    assert "1 deliveries of 1 drivers" in capsys.readouterr().out
