"""CSV of drivers, restaurants, service areas and policies: one reader and writer for all.

The first line names the columns, in any order. A row whose key exists changes it: an absent column
leaves the field as it is, an empty cell clears it. A row with a new key, or an empty one where the
server numbers, is a new one.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from doorstep.administration.fields import (
    AreaChange,
    AreaName,
    DriverChange,
    NewArea,
    NewDriver,
    NewPolicy,
    NewRestaurant,
    PolicyChange,
    RestaurantChange,
    RestaurantId,
)
from doorstep.administration.opening_hours import format_opening_hours, parse_opening_hours
from doorstep.errors import MalformedCsv

MAX_ROWS = 1_000  # applied in one transaction, which holds the lock on credentials
MAX_ERRORS = 20
# A spreadsheet takes a cell that begins so for a formula: it is written with an apostrophe before
# it, which is removed when it is read. A phone number is none.
_NUMBERS = re.compile(r"\+?[0-9 ()/.-]+")
_FORMULA = ("=", "@", "+", "-", "\t", "'")


@dataclass(frozen=True, slots=True)
class CsvKind:
    """One kind of table. `key` is the column that identifies a row."""

    name: str
    key: str
    key_type: TypeAdapter[Any]
    change: type[BaseModel]
    new: type[BaseModel]
    is_numbered: bool = False  # a new row has no key: the server gives it
    key_field: str | None = None  # of `new`, where the key is one of its fields

    @property
    def columns(self) -> list[str]:
        """The columns in the order in which they are written."""
        return [self.key, *self.change.model_fields]


DRIVERS = CsvKind(
    "drivers", "driver_id", TypeAdapter(AreaName), DriverChange, NewDriver, key_field="id"
)
RESTAURANTS = CsvKind(
    "restaurants",
    "restaurant_id",
    TypeAdapter(RestaurantId),
    RestaurantChange,
    NewRestaurant,
    is_numbered=True,
)
AREAS = CsvKind(
    "service-areas", "name", TypeAdapter(AreaName), AreaChange, NewArea, key_field="name"
)
POLICIES = CsvKind(
    "policies", "policy_id", TypeAdapter(RestaurantId), PolicyChange, NewPolicy, is_numbered=True
)


@dataclass(frozen=True, slots=True)
class CsvRow:
    """One row: its line, its key, and the cells of the given columns as values."""

    line: int
    key: Any
    values: dict[str, Any]


def read_csv(kind: CsvKind, content: bytes) -> list[CsvRow]:
    """Read a file in UTF-8, separated by commas, or by semicolons as some spreadsheets do.

    Every cell is validated. Raises MalformedCsv with each bad line and field.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = content.count(b"\n", 0, exc.start) + 1
        raise MalformedCsv([complaint(line, None, "the file is not UTF-8", "not_utf8")]) from exc
    header = text.partition("\n")[0]
    delimiter = ";" if ";" in header and "," not in header else ","
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: list[CsvRow] = []
    errors: list[dict[str, object]] = []
    seen: dict[Any, int] = {}
    try:
        columns = _read_header(kind, next(reader, []))
        before = reader.line_num
        for cells in reader:
            line, before = before + 1, reader.line_num
            if not any(cell.strip() for cell in cells):
                continue
            if len(rows) == MAX_ROWS:
                raise MalformedCsv(
                    [complaint(line, None, f"more than {MAX_ROWS:,} rows", "too_many_rows")]
                )
            row, found = _read_row(kind, columns, cells, line)
            if row.key is not None and (first := seen.setdefault(row.key, line)) != line:
                found.append(complaint(line, kind.key, f"as in line {first}", "duplicate_key"))
            rows.append(row)
            errors += found
    except csv.Error as exc:
        raise MalformedCsv([complaint(reader.line_num, None, str(exc), "not_csv")]) from exc
    if errors:
        raise MalformedCsv(errors[:MAX_ERRORS])
    return rows


def check_new(kind: CsvKind, row: CsvRow) -> list[dict[str, object]]:
    """Return what a row lacks to be a new one."""
    values = dict(row.values)
    if kind.key_field is not None:
        values[kind.key_field] = row.key
    elif row.key is not None:
        return [complaint(row.line, kind.key, "there is no such row: leave it empty", "unknown")]
    return _validate(kind, kind.new, values, row.line)


def write_csv(kind: CsvKind, rows: Iterable[Mapping[str, Any]]) -> str:
    """Write rows as a file that `read_csv` reads."""
    target = io.StringIO(newline="")
    writer = csv.writer(target, lineterminator="\r\n")  # RFC 4180
    writer.writerow(kind.columns)
    writer.writerows([_cell(row[column]) for column in kind.columns] for row in rows)
    return target.getvalue()


def complaint(line: int, field: str | None, message: str, reason: str) -> dict[str, object]:
    """Build the complaint about a line, and perhaps one field of it."""
    where = f"line {line}" if field is None else f"line {line}, {field}"
    return {"loc": where, "line": line, "field": field, "msg": message, "reason": reason}


def _read_header(kind: CsvKind, cells: Sequence[str]) -> list[str]:
    columns = [cell.strip().lower() for cell in cells]
    unknown = [one for one in columns if one not in kind.columns]
    if unknown or len(set(columns)) < len(columns) or not columns:
        text = f"the first line names columns, each once: {', '.join(kind.columns)}"
        raise MalformedCsv([complaint(1, None, text, "bad_columns")])
    if kind.key not in columns and not kind.is_numbered:
        raise MalformedCsv([complaint(1, kind.key, "this column is missing", "missing_field")])
    return columns


def _read_row(
    kind: CsvKind, columns: Sequence[str], cells: Sequence[str], line: int
) -> tuple[CsvRow, list[dict[str, object]]]:
    if len(cells) != len(columns):
        text = f"{len(cells)} cells under {len(columns)} columns"
        return CsvRow(line, None, {}), [complaint(line, None, text, "bad_columns")]
    texts = {name: _unquoted(cell) for name, cell in zip(columns, cells, strict=True)}
    key_text = texts.pop(kind.key, "")
    errors: list[dict[str, object]] = []
    values: dict[str, Any] = {}
    for name, text in texts.items():
        try:
            is_hours = name == "opening_hours" and text
            values[name] = parse_opening_hours(text) if is_hours else text or None
        except ValueError as exc:
            errors.append(complaint(line, name, str(exc), "invalid_value"))
    key = None
    if key_text:
        try:
            key = kind.key_type.validate_python(key_text)
        except ValidationError:
            errors.append(complaint(line, kind.key, "not an id", "bad_id"))
    elif not kind.is_numbered:
        errors.append(complaint(line, kind.key, "this cell is empty", "missing_field"))
    if errors:
        return CsvRow(line, key, values), errors
    try:
        valid: Any = kind.change.model_validate(values)
        return CsvRow(line, key, valid.given()), []
    except ValidationError as exc:
        return CsvRow(line, key, values), _complaints(exc, line)


def _validate(
    kind: CsvKind, model: type[BaseModel], values: dict[str, Any], line: int
) -> list[dict[str, object]]:
    try:
        model.model_validate(values)
    except ValidationError as exc:
        return _complaints(exc, line, {kind.key_field: kind.key})
    return []


def _complaints(
    exc: ValidationError, line: int, names: Mapping[str | None, str] | None = None
) -> list[dict[str, object]]:
    """Convert pydantic's errors to complaints, without the input itself."""
    return [
        complaint(
            line,
            (names or {}).get(str(one["loc"][0]), str(one["loc"][0])) if one["loc"] else None,
            str(one["msg"]),
            "missing_field" if one["type"] == "missing" else "invalid_value",
        )
        for one in exc.errors(include_url=False, include_input=False)
    ]


def text_cell(text: str) -> str:
    """Return the cell of a text, which no spreadsheet takes for a formula."""
    is_formula = text.startswith(_FORMULA) and not _NUMBERS.fullmatch(text)
    return f"'{text}" if is_formula else text


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return format_opening_hours(value)
    return text_cell(value) if isinstance(value, str) else str(value)


def _unquoted(cell: str) -> str:
    text = cell.strip()
    return text[1:] if text.startswith("'") and text[1:].startswith(_FORMULA) else text
