"""Series in the database: written once, sampled without losing a spike, dropped when old."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from doorstep.store import fix_writer
from tests.database import Database
from tests.factories import make_fix
from tests.sql.fleet import Fleet

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
Points = Sequence[tuple[str, float, float]]


def at(second: float) -> datetime:
    """An instant of the test's day."""
    return NOON + timedelta(seconds=second)


class Writer:
    """Writes points as driver_events does."""

    def __init__(self, conn: psycopg.Connection[Any]) -> None:
        self.conn = conn

    def record(self, points: Points) -> list[tuple[int, str]]:
        """(name, second, value) each; one transaction."""
        rows = [(n, name, at(second), value) for n, (name, second, value) in enumerate(points)]
        others = fix_writer.record_points(self.conn, rows)
        self.conn.commit()
        return sorted(others)


@pytest.fixture
def writer(database: Database) -> Iterator[Writer]:
    with database.connect("driver_events") as conn:
        yield Writer(conn)


def sample(database: Database, name: str, seconds: tuple[float, float], points: int) -> Any:
    with database.connect("tracking_api", autocommit=True) as conn:
        no = conn.execute("SELECT series_no FROM series WHERE name = %s", [name]).fetchone()
        assert no is not None
        bounds = [at(second) for second in seconds]
        return conn.execute(
            "SELECT low_at, low, high_at, high, point_count"
            " FROM series__downsample_v1(%s, NULL, NULL, %s, %s, %s)",
            [no[0], *bounds, points],
        ).fetchall()


def test_record_points__new_names__become_series_with_unit_and_newest_value(
    writer: Writer, database: Database
) -> None:
    assert writer.record([("box/t_c", 1, -3.5), ("box/t_c", 0, -4.0), ("box/x", 0, 1.0)]) == []
    rows = database.rows("SELECT name, source_id, measure, unit, last_at, last_value FROM"
                         " doorstep.series ORDER BY name")  # fmt: skip
    assert [tuple(row.values()) for row in rows] == [
        ("box/t_c", "box", "t_c", "°C", at(1), -3.5),
        ("box/x", "box", "x", "", at(0), 1.0),
    ]
    assert writer.record([("box/t_c", 0.5, 9.0)]) == []  # late: it does not become the newest
    assert database.value("SELECT last_value FROM doorstep.series WHERE name = 'box/t_c'") == -3.5


def test_record_points__a_known_instant__the_first_value_stays(
    writer: Writer, database: Database
) -> None:
    assert writer.record([("a/b", 0, 1.0), ("a/b", 0, 1.0), ("a/b", 0, 2.0)]) == [
        (1, "duplicate"),
        (2, "conflict"),
    ]
    assert writer.record([("a/b", 0, 2.0), ("a/b", 0, 1.0), ("a/b", 1, 3.0)]) == [
        (0, "conflict"),
        (1, "duplicate"),
    ]
    rows = database.rows("SELECT at, value FROM doorstep.series_point ORDER BY at")
    assert [tuple(row.values()) for row in rows] == [(at(0), 1.0), (at(1), 3.0)]
    assert database.value("SELECT last_value FROM doorstep.series") == 3.0


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_record_points__not_finite__is_refused_by_the_table(writer: Writer, value: float) -> None:
    with pytest.raises(psycopg.errors.CheckViolation):
        writer.record([("a/b", 0, value)])


def test_record_points__a_source_with_1000_series__gets_no_more(
    writer: Writer, database: Database
) -> None:
    points = [(f"a/{n}", 0.0, 0.0) for n in range(998)]
    assert writer.record(points) == []
    more = [("a/x", 0.0, 0.0), ("a/y", 0.0, 0.0), ("a/z", 0.0, 0.0), ("a-b/z", 0.0, 0.0)]
    assert writer.record([*more, ("a/z", 1.0, 0.0)]) == [
        (2, "too_many_series"),
        (4, "too_many_series"),
    ]
    assert database.value("SELECT count(*) FROM doorstep.series") == 1001


def test_sample__few_points__are_all_given(writer: Writer, database: Database) -> None:
    writer.record([("a/b", n, -float(n)) for n in range(10)])
    rows = sample(database, "a/b", (2, 6), 10)
    assert [(row[0], row[1], row[4]) for row in rows] == [(at(n), -n, 1) for n in range(2, 6)]


def test_sample__many_points__every_spike_stays_and_every_point_is_counted(
    writer: Writer, database: Database
) -> None:
    values = [0.0] * 2000
    values[700], values[1333] = 500.0, -500.0
    writer.record([("a/b", n, value) for n, value in enumerate(values)])
    rows = sample(database, "a/b", (0, 2000), 100)
    assert len(rows) == 50
    assert sum(row[4] for row in rows) == 2000
    assert [(row[2], row[3]) for row in rows if row[3] > 0] == [(at(700), 500.0)]
    assert [(row[0], row[1]) for row in rows if row[1] < 0] == [(at(1333), -500.0)]


def test_sample__a_drivers_battery__comes_out_of_the_history_of_fixes(fleet: Fleet) -> None:
    with fleet.database.connect("driver_events") as conn:
        fix_writer.record_fixes(conn, [make_fix(seq=1, battery=0.75, speed_mps=None)])
        conn.commit()
    with fleet.database.connect("tracking_api") as conn:
        found = {
            measure: conn.execute(
                "SELECT low FROM series__downsample_v1(NULL, 'd1', %s, now() - interval '1 d',"
                " now() + interval '1 d', 10)",
                [measure],
            ).fetchall()
            for measure in ("battery", "speed_mps")
        }
    assert found == {"battery": [(0.75,)], "speed_mps": []}


def test_expire_points__past_retention__are_gone_and_the_others_stay(
    writer: Writer, database: Database
) -> None:
    writer.record([("a/b", 0, 1.0), ("a/b", 10, 2.0), ("c/d", 5, 3.0)])
    assert fix_writer.expire_points(writer.conn, at(6)) == 2
    writer.conn.commit()
    assert database.value("SELECT value FROM doorstep.series_point") == 2.0


@pytest.mark.parametrize("role", ["driver_api", "tracking_api", "driver_events"])
def test_series__no_service__writes_the_tables(database: Database, role: str) -> None:
    with database.connect(role) as conn, pytest.raises(psycopg.errors.InsufficientPrivilege):
        conn.execute("INSERT INTO series_point VALUES (1, now(), 1)")
