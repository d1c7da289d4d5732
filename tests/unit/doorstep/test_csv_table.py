"""CSV of what admins set: read, refused with line and field, written and read again."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doorstep.administration.csv_table import (
    AREAS,
    DRIVERS,
    POLICIES,
    RESTAURANTS,
    CsvKind,
    check_new,
    read_csv,
    write_csv,
)
from doorstep.administration.opening_hours import (
    DAYS,
    format_opening_hours,
    parse_opening_hours,
)
from doorstep.errors import MalformedCsv

PLACE = "name,lat_deg,lon_deg"


def refused(kind: CsvKind, content: bytes | str) -> list[tuple[object, object, object]]:
    raw = content.encode() if isinstance(content, str) else content
    with pytest.raises(MalformedCsv) as found:
        read_csv(kind, raw)
    return [(one["line"], one["field"], one["reason"]) for one in found.value.errors]


def test_read_csv__columns_in_another_order_and_a_mark__are_read() -> None:
    [row] = read_csv(DRIVERS, "\ufeffVehicle, driver_id\r\nvan,anna\r\n".encode())
    assert (row.line, row.key, row.values) == (2, "anna", {"vehicle": "van"})


def test_read_csv__semicolons__are_what_some_spreadsheets_write() -> None:
    [row] = read_csv(RESTAURANTS, b"name;lat_deg;lon_deg\nBar, Uno;43.7;11.2\n")
    assert row.values == {"name": "Bar, Uno", "lat_deg": 43.7, "lon_deg": 11.2}


def test_read_csv__an_empty_cell__clears_and_an_absent_column_does_not() -> None:
    [row] = read_csv(DRIVERS, b"driver_id,phone\nanna,\n")
    assert row.values == {"phone": None}


def test_read_csv__a_cell_with_a_line_break_before_it__is_named_by_its_own_line() -> None:
    table = f'{PLACE}\n"A",1,1\n"B\nx",1,1\n\nC,x,1\n'
    assert [one[:2] for one in refused(RESTAURANTS, table)] == [(3, "name"), (6, "lat_deg")]


@pytest.mark.parametrize(
    ("kind", "content", "expected"),
    [
        (DRIVERS, "", (1, None, "bad_columns")),
        (DRIVERS, "driver_id,driver_id\n", (1, None, "bad_columns")),
        (DRIVERS, "driver_id,salary\n", (1, None, "bad_columns")),
        (DRIVERS, "name\nAnna\n", (1, "driver_id", "missing_field")),
        (DRIVERS, "driver_id,name\nanna\n", (2, None, "bad_columns")),
        (DRIVERS, "driver_id\na/b\n", (2, "driver_id", "bad_id")),
        (DRIVERS, "driver_id,name\n,Anna\n", (2, "driver_id", "missing_field")),
        (DRIVERS, "driver_id\na\na\n", (3, "driver_id", "duplicate_key")),
        (DRIVERS, "driver_id,name\na,\n", (2, "name", "invalid_value")),
        (DRIVERS, "driver_id,vehicle\na,boat\n", (2, "vehicle", "invalid_value")),
        (DRIVERS, b"driver_id\na\n\xff\n", (3, None, "not_utf8")),
        (DRIVERS, 'driver_id\n"a"b\n', (2, None, "not_csv")),
        (RESTAURANTS, f"{PLACE}\nA,nan,1\n", (2, "lat_deg", "invalid_value")),
        (RESTAURANTS, "opening_hours\nnoon\n", (2, "opening_hours", "invalid_value")),
        (RESTAURANTS, "opening_hours\nmon 9:00-10:00\n", (2, "opening_hours", "invalid_value")),
        (RESTAURANTS, "opening_hours\nmon 25:00-10:00\n", (2, "opening_hours", "invalid_value")),
        (AREAS, "name,west\na,181\n", (2, "west", "invalid_value")),
        (POLICIES, "name,pace\na,0\n", (2, "pace", "invalid_value")),
    ],
)
def test_read_csv__a_bad_file__names_line_field_and_reason(
    kind: CsvKind, content: bytes | str, expected: tuple[Any, ...]
) -> None:
    assert refused(kind, content)[0] == expected


def test_check_new__a_row_that_lacks_a_field__names_it() -> None:
    [row] = read_csv(RESTAURANTS, b"name,lat_deg\nA,1\n")
    assert [one["field"] for one in check_new(RESTAURANTS, row)] == ["lon_deg"]
    [row] = read_csv(RESTAURANTS, b"restaurant_id,name,lat_deg,lon_deg\n7,A,1,1\n")
    assert [one["field"] for one in check_new(RESTAURANTS, row)] == ["restaurant_id"]


@pytest.mark.parametrize("name", ["bridge", "forgotten", "tickers"])
def test_check_new__a_reserved_id__is_refused(name: str) -> None:
    [row] = read_csv(DRIVERS, f"driver_id\n{name}\n".encode())
    assert [one["field"] for one in check_new(DRIVERS, row)] == ["driver_id"]


texts = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), min_size=1).map(
    str.strip
)


@given(name=texts.filter(bool), address=st.none() | texts.filter(bool))
def test_write_csv__of_any_text__is_read_again_and_is_no_formula(
    name: str, address: str | None
) -> None:
    name, address = name[:100].strip(), address and address[:300].strip()
    row = {
        "restaurant_id": 1_000_000,
        "name": name,
        "address": address,
        "phone": "+39 055 1",
        "lat_deg": -43.7,
        "lon_deg": 11.25,
        "preparation_s": 900,
        "opening_hours": [{"days": ["fri", "sat"], "from": "18:00", "to": "02:00"}],
    }
    text = write_csv(RESTAURANTS, [row])
    [read] = read_csv(RESTAURANTS, text.encode())
    assert read.values | {"restaurant_id": read.key} == row
    if name.startswith(("=", "@")):
        assert f"'{name[0]}" in text


@pytest.mark.parametrize(
    ("text", "days"),
    [
        ("mon-fri 11:30-15:00", ["mon", "tue", "wed", "thu", "fri"]),
        ("sat-mon 11:30 - 15:00", ["mon", "sat", "sun"]),
        ("Sun,sun,wed 11:30-15:00;", ["wed", "sun"]),
    ],
)
def test_opening_hours__ranges_of_days__are_days_in_order(text: str, days: list[str]) -> None:
    assert parse_opening_hours(text) == [{"days": days, "from": "11:30", "to": "15:00"}]


@given(st.lists(st.sets(st.sampled_from(DAYS), min_size=1), max_size=4))
def test_opening_hours__formatted__are_parsed_to_the_same(days: list[set[str]]) -> None:
    spans = [
        {"days": sorted(one, key=DAYS.index), "from": "18:00", "to": "02:00"}  # type: ignore[arg-type]
        for one in days
    ]
    assert parse_opening_hours(format_opening_hours(spans)) == spans
