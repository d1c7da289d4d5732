"""The migrations from nothing end where the schema files do."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import psycopg
import pytest

import sql
from ops.servers.postgres import PASSWORD
from ops.stack.postgres import OWNER, PostgresCluster, find_binaries
from sql.__main__ import main
from sql.install import schema_files, schema_text
from sql.migrate import upgrade
from tests.database import Database

ROWS = ("order_transition", "driver_transition", "policy", "limits", "history_bounds")


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


def test_migrations__from_nothing__equal_the_schema_files(
    postgres_cluster: PostgresCluster, database: Database
) -> None:
    postgres_cluster.create_database(PASSWORD, "by_schema")
    url = postgres_cluster.url(OWNER, PASSWORD, "by_schema")
    with psycopg.connect(url) as conn:
        conn.execute(schema_text())
    assert dump(url) == dump(database.url())
    with psycopg.connect(url) as one, psycopg.connect(database.url()) as two:
        for table in ROWS:
            statement = f"SELECT to_jsonb(t) - 'created_at' FROM doorstep.{table} t ORDER BY 1"
            rows = one.execute(statement).fetchall()
            assert rows
            assert rows == two.execute(statement).fetchall()


def test_upgrade__a_second_time__changes_nothing(database: Database) -> None:
    before = dump(database.url())
    upgrade(database.url())
    assert dump(database.url()) == before


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
    for name in ("DRIVER_EVENTS", "DRIVER_API", "TRACKING_API"):
        monkeypatch.setenv(f"{name}_PASSWORD", PASSWORD)
    assert main(["passwords"]) == 0
    with database.connect("tracking_api") as conn:
        assert conn.execute("SELECT current_user").fetchone() == ("tracking_api",)
    monkeypatch.setenv("DRIVER_API_PASSWORD", "")
    assert main(["passwords"]) == 78


def test_queries__every_block__is_sent_from_somewhere() -> None:
    root = Path(sql.__file__).parent.parent
    sources = "".join(
        path.read_text(encoding="utf-8")
        for folder in ("sql", "doorstep", "driver_api", "tracking_api", "driver_events", "tests")
        for path in (root / folder).rglob("*.py")
    )
    assert [name for name in sql.query_names() if f'"{name}"' not in sources] == []


def test_schema__every_function__is_named_for_a_table_or_is_versioned() -> None:
    names = set()
    for path in schema_files():
        names |= set(re.findall(r"^CREATE FUNCTION (\w+)", sql.read_sql(path), re.MULTILINE))
    helpers = {"ground_distance_m", "cell_of", "instant_text"}
    assert {name for name in names if "__" not in name and not name.endswith("_v1")} == helpers
