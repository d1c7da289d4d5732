"""`./run drivers import` over the whole stack: the same parser, and the drivers may log in."""

from __future__ import annotations

import argparse
from pathlib import Path

import psycopg
import pytest

from ops.commands.drivers_command import drivers
from ops.stack.stack import Stack


def run_import(stack: Stack, *paths: Path) -> int:
    ids = [str(path) for path in paths]
    return drivers(stack, argparse.Namespace(action="import", ids=ids, all=False))


def test_import__of_new_and_known_drivers__sets_what_the_file_says(
    stack: Stack, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    stack.add_drivers(["csv-anna"])
    table = tmp_path / "fleet.csv"
    table.write_text("driver_id,name,vehicle\ncsv-anna,Anna,moped\ncsv-nino,Nino,\n", "utf-8")
    assert run_import(stack, table) == 0
    said = "".join(capfd.readouterr())
    assert "imported 2" in said
    assert said.endswith("next: ./run drivers invite ID\n")
    with psycopg.connect(stack.database_admin_url) as conn:
        rows = conn.execute(
            "SELECT name, vehicle FROM doorstep.driver WHERE driver_id LIKE 'csv-%'"
            " ORDER BY driver_id"
        ).fetchall()
    assert rows == [("Anna", "moped"), ("Nino", None)]
    assert drivers(stack, argparse.Namespace(action="token", ids=["csv-nino"], all=False)) == 0
    assert capfd.readouterr().out.startswith("drv_")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("driver_id,vehicle\ncsv-bad,boat\n", "line 2, vehicle"),
        ("driver_id\nbridge\n", "line 2, driver_id"),
        (None, "cannot be read"),
    ],
)
def test_import__of_a_bad_file__says_where_and_adds_no_driver(
    stack: Stack,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    content: str | None,
    complaint: str,
) -> None:
    table = tmp_path / "fleet.csv"
    if content is not None:
        table.write_text(content, "utf-8")
    before = len(stack.devices("driver"))
    assert run_import(stack, table) == 1
    assert complaint in "".join(capfd.readouterr())
    assert len(stack.devices("driver")) == before
