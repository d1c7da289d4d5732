"""`./run orders import` over the whole stack: created once, and refused line by line."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from ops.commands.orders_command import complaints_of, orders
from ops.stack.stack import Stack

HEADER = "external_id,pickup_name,pickup_lon_deg,pickup_lat_deg,lon_deg,lat_deg\n"
GOOD = "cli-1,Bar,11.2558,43.7731,11.26,43.775\ncli-2,Bar,11.2558,43.7731,11.261,43.776\n"


def run_import(stack: Stack, path: Path, *, dry_run: bool = False, as_json: bool = True) -> int:
    options = argparse.Namespace(action="import", files=[path], dry_run=dry_run, json=as_json)
    return orders(stack, options)


def test_import__dry_run_then_twice__creates_each_order_once(
    stack: Stack, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "orders.csv"
    table.write_text(HEADER + GOOD, "utf-8")
    found = []
    for dry_run in (True, False, False):
        assert run_import(stack, table, dry_run=dry_run) == 0
        found.append(json.loads(capsys.readouterr().out))
    assert [(one["created"], one["unchanged"]) for one in found] == [(2, 0), (2, 0), (0, 2)]
    assert [one["external_id"] for one in found[1]["orders"]] == ["cli-1", "cli-2"]
    assert run_import(stack, table, as_json=False) == 0
    assert "created 0, unchanged 2" in capsys.readouterr().err


def test_import__bad_row__names_line_and_field_and_creates_no_order(
    stack: Stack, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "bad.csv"
    table.write_text(HEADER + "cli-3,Bar,11.2558,43.7731,11.26,north\n", "utf-8")
    assert run_import(stack, table) == 1
    assert "line 2, lat_deg" in capsys.readouterr().err
    table.write_text(HEADER + "cli-3,Bar,11.2558,43.7731,11.26,43.775\n", "utf-8")
    assert run_import(stack, table, dry_run=True) == 0
    assert json.loads(capsys.readouterr().out)["created"] == 1


def test_import__no_file__says_so(
    stack: Stack, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_import(stack, tmp_path / "none.csv") == 1
    assert "is not imported: No such file" in capsys.readouterr().err


def test_complaints__no_problem_document__the_status() -> None:
    assert complaints_of(502, b"<html>") == ["the API answered 502"]
