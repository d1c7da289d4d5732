"""Migrations: the same schema from nothing and from 0001, data unchanged, refusals."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest

import sql
from doorstep.store import fix_writer
from doorstep.store.compaction import Compactor
from doorstep.store.records import IncomingRow
from ops.commands.rebuild import Rebuilder, Rebuilt
from ops.servers.postgres import PASSWORD
from ops.stack.errors import StackError
from ops.stack.paths import StackPaths
from ops.stack.postgres import OWNER, PostgresCluster, find_binaries
from ops.stack.setup import UPGRADE_REFUSED, set_up_database
from sql.__main__ import main
from sql.fingerprint import fingerprint, recorded_fingerprints
from sql.install import schema_files, schema_text
from sql.migrate import UpgradeRefused, upgrade
from tests.database import Database, cloned_database
from tests.factories import Place, make_fix, numbered
from tests.sql.first_revision import (
    DRIVERS,
    FIRST_MISSING,
    LAST_MISSING,
    PACKED_DAY,
    REJECTED_SEQ,
    STORED_SEQS,
    create_first_revision,
    rows_of,
)

SEEDED = {
    "order_transition": "",
    "driver_transition": "",
    "policy": "WHERE policy_id = 1",
    "limits": "",
}
RENAMED_TABLES = {
    "driver_reporting": "driver_sampling",
    "sealed_before": "history_bounds",
    "simulation": "simulation_target",
}
RENAMED_COLUMNS = {
    "driver_reporting": {"report": "sampling_policy"},
    "driver_state": {"room": "hot_padding"},
    "eta_model": {"ways": "route_choice"},
    "fix_chunk": {
        "fixes": "fix_count",
        "run_at": "run_starts",
        "run_seq": "run_seqs",
        "battery_at": "battery_starts",
        "way_bytes": "track_bytes",
        "coded": "encoded",
    },
    "kafka_offset": {"moved_at": "advanced_at"},
    "sealed_before": {"packed_in": "packed_xid"},
    "simulation": {"wanted": "target_count"},
}


def dump(url: str) -> str:
    """Dump the schema without what differs between two runs."""
    done = subprocess.run(
        [
            str(find_binaries() / "pg_dump"),
            "--schema-only",
            "--schema=doorstep",
            "--exclude-table=doorstep.fix_history_2*",
            f"--dbname={url}",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    lines = (line for line in done.stdout.splitlines() if not line.startswith("--"))
    text = re.sub(r"^\\(un)?restrict .*$", "", "\n".join(lines), flags=re.MULTILINE)
    return re.sub(r"\n{2,}", "\n", text)


@pytest.fixture(scope="module")
def first_revision(postgres_cluster: PostgresCluster) -> str:
    """The name of a database at 0001 with data, to be cloned."""
    name = "first_revision"
    postgres_cluster.create_database(PASSWORD, name)
    create_first_revision(Database(postgres_cluster, name))
    return name


@pytest.fixture
def old(postgres_cluster: PostgresCluster, first_revision: str) -> Iterator[Database]:
    """A database at 0001 with data."""
    with cloned_database(postgres_cluster, first_revision) as database:
        yield database


@pytest.fixture
def fresh(postgres_cluster: PostgresCluster) -> Iterator[Database]:
    """An empty database with PostGIS."""
    postgres_cluster.create_database(PASSWORD, "empty")
    with cloned_database(postgres_cluster, "empty") as database:
        yield database


def seeded_rows(url: str) -> dict[str, list[tuple[object, ...]]]:
    """Read the rows that the schema itself contains."""
    with psycopg.connect(url) as conn:
        return {
            table: conn.execute(
                f"SELECT to_jsonb(t) - 'created_at' FROM doorstep.{table} t {where} ORDER BY 1"
            ).fetchall()
            for table, where in SEEDED.items()
        }


def test_migrations__from_nothing__equal_the_schema_files(
    fresh: Database, database: Database
) -> None:
    with psycopg.connect(fresh.url()) as conn:
        conn.execute(schema_text())
    assert dump(fresh.url()) == dump(database.url())
    rows = seeded_rows(fresh.url())
    assert all(rows.values())
    assert rows == seeded_rows(database.url())
    with database.connect() as conn, fresh.connect() as other:
        assert fingerprint(conn) == fingerprint(other)


def test_migrations__from_the_first_revision_with_data__equal_those_from_nothing(
    old: Database, database: Database
) -> None:
    upgrade(old.url())
    assert dump(old.url()) == dump(database.url())
    assert seeded_rows(old.url()) == seeded_rows(database.url())


def test_second_revision__every_row__is_what_it_was(old: Database) -> None:
    with old.connect() as conn:
        before = rows_of(conn)
    assert all(before.values()), [table for table, rows in before.items() if not rows]
    upgrade(old.url(), "0002")
    with old.connect() as conn:
        after = rows_of(conn)
    expected = {
        RENAMED_TABLES.get(table, table): sorted(
            renamed(row, RENAMED_COLUMNS.get(table, {})) for row in rows
        )
        for table, rows in before.items()
    }
    assert {table: sorted(renamed(row, {}) for row in rows) for table, rows in after.items()} == (
        expected
    )


def test_third_revision__assignments_that_are_there__are_visible_from_start_to_end(
    old: Database,
) -> None:
    upgrade(old.url())
    [found] = old.rows(
        "SELECT count(*) AS n, bool_and(visible = tstzmultirange(tstzrange(assigned_at, ended_at)))"
        " AS is_whole, bool_or(upper_inf(visible)) AS is_open FROM assignment"
    )
    assert found["n"] > 0
    assert found["is_whole"]
    assert found["is_open"]


def renamed(row: str, names: dict[str, str]) -> str:
    return json.dumps(
        {names.get(name, name): value for name, value in json.loads(row).items()}, sort_keys=True
    )


def test_upgrade__of_the_first_revision__rebuild_agrees_with_what_is_stored(
    old: Database,
) -> None:
    upgrade(old.url())
    with old.connect(autocommit=True) as conn:
        rebuilder = Rebuilder(conn)
        rebuilt = Rebuilt()
        differences = [
            *(
                one
                for ids in rebuilder.order_ids()
                for one in rebuilder.compare_orders(ids, rebuilt)
            ),
            *(
                one
                for ids in rebuilder.driver_ids()
                for one in rebuilder.compare_drivers(ids, [], rebuilt)
            ),
        ]
    assert [one.line() for one in differences] == []
    assert (rebuilt.orders, rebuilt.drivers) == (10, len(DRIVERS))


def test_upgrade__of_the_first_revision__devices_continue_where_they_were(old: Database) -> None:
    upgrade(old.url())
    with old.connect(autocommit=True) as conn:

        def record(*rows: IncomingRow) -> list[str]:
            with conn.transaction():
                return [one.outcome for one in fix_writer.record_fixes(conn, rows)]

        def watermark() -> tuple[int, list[list[int]]]:
            [mark] = fix_writer.read_watermarks(conn, [("d1", "b1")])
            return mark.seq, [list(gap) for gap in mark.missing]

        gap = [[FIRST_MISSING, LAST_MISSING]]
        assert watermark() == (REJECTED_SEQ, gap)
        [stored] = conn.execute(
            "SELECT fix_at, received_at, lon_deg, lat_deg FROM fix_history"
            " WHERE driver_id = 'd1' AND boot = 'b1' AND seq = %s",
            [STORED_SEQS],
        ).fetchall()
        fix_at, received_at, *place = stored
        copy = make_fix(
            "d1", STORED_SEQS, fix_at=fix_at, received_at=received_at, place=Place(*place)
        )
        assert record(copy) == ["duplicate"]
        assert record(make_fix("d1", REJECTED_SEQ + 1)) == []
        assert watermark() == (REJECTED_SEQ + 1, gap)
        missing = range(FIRST_MISSING, LAST_MISSING + 1)
        assert record(*numbered([make_fix("d1", seq, late_s=60 - seq) for seq in missing])) == []
        assert watermark() == (REJECTED_SEQ + 1, [])
        with conn.transaction():
            assert fix_writer.record_parked(conn) == 1


def test_upgrade__of_the_first_revision__packed_days_are_read_and_the_next_is_packed(
    old: Database,
) -> None:
    read = (
        "SELECT fix_at, boot, seq, lon_deg, lat_deg, speed_mps, battery, quarantine"
        " FROM fix_history__between_v1('d1', %s, %s) ORDER BY 1, 2, 3"
    )
    window = (PACKED_DAY, PACKED_DAY + timedelta(days=1))
    with old.connect() as conn:
        before = conn.execute(read, window).fetchall()
    assert len(before) == 200
    upgrade(old.url())
    with old.connect() as conn:
        assert conn.execute(read, window).fetchall() == before
        conn.commit()
        compactor = Compactor(conn)
        assert compactor.run(compactor.plan(None)).fixes == 400
        assert conn.execute(read, window).fetchall() == before


def test_upgrade__a_second_time__changes_nothing(database: Database) -> None:
    before = dump(database.url())
    upgrade(database.url())
    assert dump(database.url()) == before


def test_fingerprints__of_every_revision__are_those_of_a_real_database(fresh: Database) -> None:
    recorded = recorded_fingerprints()
    versions = Path(sql.__file__).parent / "migrations" / "versions"
    assert sorted(recorded) == sorted(path.name[:4] for path in versions.glob("[0-9]*.py"))
    for revision in sorted(recorded):
        upgrade(fresh.url(), revision)
        with fresh.connect() as conn:
            assert fingerprint(conn) == recorded[revision]


@pytest.mark.parametrize(
    "change",
    [
        "CREATE OR REPLACE FUNCTION {schema}.delete_outbox_v1(ids int8[]) RETURNS void"
        " LANGUAGE sql SECURITY DEFINER SET search_path = doorstep, public, pg_temp"
        " AS $$ SELECT $$",
        "ALTER FUNCTION {schema}.delete_outbox_v1 SECURITY INVOKER",
        "DROP FUNCTION {schema}.record_parked_v1",
        "ALTER TABLE {schema}.orders ADD note text",
        "ALTER TABLE {schema}.parked_fix DROP reason",
        "DROP TRIGGER _900_announce ON {schema}.order_event",
        "ALTER TYPE {schema}.order_state ADD VALUE 'returned'",
    ],
)
@pytest.mark.parametrize("revision", ["0001", "newest"])
def test_upgrade__a_schema_that_is_not_its_revisions__is_refused_and_left_alone(
    old: Database, database: Database, revision: str, change: str
) -> None:
    tampered = old if revision == "0001" else database
    tampered.rows(change.format(schema="doorstep"))
    before = dump(tampered.url())
    with pytest.raises(UpgradeRefused, match=r"not those of \d{4}.*pg_dump.*Nothing was changed"):
        upgrade(tampered.url())
    assert dump(tampered.url()) == before


def test_upgrade__a_newer_revision__is_refused_and_left_alone(database: Database) -> None:
    database.rows("UPDATE public.alembic_version SET version_num = '9999'")
    with pytest.raises(UpgradeRefused, match=r"at revision 9999.*or a newer one"):
        upgrade(database.url())
    assert database.value("SELECT version_num FROM public.alembic_version") == "9999"


def test_upgrade__a_schema_without_a_revision__is_refused(database: Database) -> None:
    database.rows("DROP TABLE public.alembic_version")
    with pytest.raises(UpgradeRefused, match="no revision"):
        upgrade(database.url())


def test_upgrade__to_the_second_revision_with_a_service_connected__is_refused(
    old: Database,
) -> None:
    before = dump(old.url())
    with (
        old.connect("driver_events"),
        pytest.raises(UpgradeRefused, match=r"1 sessions of the services .* stop driver_events"),
    ):
        upgrade(old.url())
    assert dump(old.url()) == before


def test_main__a_refused_upgrade__is_one_line_and_status_65(
    database: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    database.rows("UPDATE public.alembic_version SET version_num = '9999'")
    monkeypatch.setenv("DATABASE_ADMIN_URL", database.url())
    assert main(["upgrade"]) == UPGRADE_REFUSED == 65
    said = capsys.readouterr().err
    assert said.startswith("sql: upgrade refused: the database is at revision 9999")
    assert said.count("\n") == 1


class RunningCluster(PostgresCluster):
    def is_ready(self) -> bool:
        return True

    def create_database(self, owner_password: str, database: str = "") -> None:
        """Do nothing."""


def test_set_up_database__a_refused_upgrade__is_the_launchers_error(
    database: Database, tmp_path: Path
) -> None:
    """`RunningCluster` replaces the cluster: the database exists already, under another name."""
    database.rows("UPDATE public.alembic_version SET version_num = '9999'")
    environment = {**os.environ, "DATABASE_ADMIN_URL": database.url()}
    cluster = RunningCluster(Path(), 0, "")
    secret = tmp_path / "secrets" / "database" / OWNER
    secret.parent.mkdir(parents=True)
    secret.write_text(PASSWORD)
    with pytest.raises(StackError, match=r"^upgrade refused: the database is at revision 9999"):
        set_up_database(StackPaths(tmp_path), cluster, environment)


def test_main__fingerprint__prints_that_of_the_database(
    database: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_ADMIN_URL", database.url())
    assert main(["fingerprint"]) == 0
    assert capsys.readouterr().out.strip() in recorded_fingerprints().values()


def test_main__without_a_url__says_which_variable(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("DATABASE_ADMIN_URL", raising=False)
    assert main(["upgrade"]) == 78
    assert "DATABASE_ADMIN_URL" in capsys.readouterr().err


def test_main__passwords__let_the_services_in(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_ADMIN_URL", database.url())
    for name in (
        "DRIVER_EVENTS",
        "DRIVER_API",
        "TRACKING_API",
        "CUSTOMER",
        "BROKER_SYNC",
        "WEBHOOKS",
    ):
        monkeypatch.setenv(f"{name}_PASSWORD", PASSWORD)
    assert main(["passwords"]) == 0
    with database.connect("tracking_api") as conn:
        assert conn.execute("SELECT current_user").fetchone() == ("tracking_api",)
    monkeypatch.setenv("DRIVER_API_PASSWORD", "")
    assert main(["passwords"]) == 78


PACKAGES = (
    "sql",
    "doorstep",
    "driver_api",
    "tracking_api",
    "driver_events",
    "webhooks",
    "ops",
    "tests",
)


def test_queries__every_block__is_sent_from_somewhere() -> None:
    root = Path(sql.__file__).parent.parent
    sources = "".join(
        path.read_text(encoding="utf-8")
        for folder in PACKAGES
        for path in (root / folder).rglob("*.py")
    )
    assert [name for name in sql.query_names() if f'"{name}"' not in sources] == []


def test_sql_files__every_line__is_formatted_alike() -> None:
    root = Path(sql.__file__).parent
    frozen = root / "migrations" / "versions"
    keywords = r"(?:select|from|where|join|insert|update|delete|create|returns|language|order by)"
    bad = []
    for path in root.rglob("*.sql"):
        if frozen in path.parents:
            continue
        text = path.read_text(encoding="utf-8")
        assert text.startswith("-- "), f"{path.name} does not say what it holds"
        assert text.endswith("\n")
        for number, line in enumerate(text.splitlines(), 1):
            code = line.partition("--")[0]
            indent = len(line) - len(line.lstrip())
            is_odd = re.search(rf"\t|^\s*{keywords}\b|\bANY\(|\w \[\]", code)
            if is_odd or len(line) > 100 or line != line.rstrip() or indent % 2:
                bad.append(f"{path.name}:{number}: {line}")
    assert bad == []


def test_schema__every_function__is_named_for_a_table_or_is_versioned() -> None:
    names = set()
    for path in schema_files():
        names |= set(re.findall(r"^CREATE FUNCTION (\w+)", sql.read_sql(path), re.MULTILINE))
    helpers = {"ground_distance_m", "cell_of", "instant_text", "is_in_box"}
    assert {
        name for name in names if "__" not in name and not re.search(r"_v\d+$", name)
    } == helpers
