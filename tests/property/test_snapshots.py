"""The comparison leaves nothing out that it does not name."""

from __future__ import annotations

from tests.database import Database
from tests.property.snapshots import APART, COMPARED, LEFT_OUT


def test_comparison__every_column_of_the_schema__is_compared_or_named_with_its_reason(
    database: Database,
) -> None:
    rows = database.rows(
        "SELECT c.table_name, c.column_name FROM information_schema.columns c"
        " JOIN information_schema.tables t USING (table_schema, table_name)"
        " WHERE c.table_schema = 'doorstep'"
        " AND (t.table_type = 'BASE TABLE' OR c.table_name = 'driver_boot')"
        " AND c.table_name NOT LIKE 'fix_history\\__%%'"
    )
    there: dict[str, set[str]] = {}
    for row in rows:
        there.setdefault(row["table_name"], set()).add(row["column_name"])
    named = {
        table: {*columns.split(), *LEFT_OUT.get(table, {})}
        for table, (_key, columns) in COMPARED.items()
    }
    assert named == {table: columns for table, columns in there.items() if table not in APART}
    assert set(APART) <= set(there)


def test_comparison__of_instants__leaves_out_only_those_of_writing_down() -> None:
    left_out = {
        f"{table}.{column}": reason
        for table, columns in LEFT_OUT.items()
        for column, reason in columns.items()
        if column.endswith("_at")
        and table != "parked_fix"
        and column not in ("quota_at", "forgotten_at")
    }
    assert set(left_out.values()) == {"when it was written down"}
