"""The state that must not depend on the order of arrival, read from databases and compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from psycopg.rows import dict_row

QUERIES = {
    "history": """
        SELECT driver_id, boot, seq, fix_at, received_at, lon_deg, lat_deg, accuracy_m, speed_mps,
            heading_deg, altitude_m, quarantine
        FROM doorstep.fix_history WHERE driver_id = ANY (%s)
        ORDER BY driver_id, fix_at, boot, seq""",
    "boots": """
        SELECT driver_id, boot, stored, rejected FROM doorstep.driver_boot
        WHERE driver_id = ANY (%s) ORDER BY driver_id, boot""",
    "evidence": """
        SELECT a.driver_id, e.assignment_no, e.state::text, e.source::text, e.occurred_at
        FROM doorstep.evidence e JOIN doorstep.assignment a USING (order_id, assignment_no)
        WHERE a.driver_id = ANY (%s) ORDER BY a.driver_id, e.state""",
    "states": """
        SELECT a.driver_id, o.state::text, o.assignment_no, d.state::text, d.fix_at,
            d.received_at, d.boot, d.seq, d.lon_deg, d.lat_deg, d.accuracy_m
        FROM doorstep.orders o JOIN doorstep.assignment a USING (order_id, assignment_no)
        JOIN doorstep.driver_state d USING (driver_id)
        WHERE a.driver_id = ANY (%s) ORDER BY a.driver_id""",
}
FinalState = dict[str, list[dict[str, Any]]]


def read_final_state(conn: Any, drivers: Sequence[str], parts: Sequence[str] = ()) -> FinalState:
    """Read the final state of these drivers."""
    with conn.cursor(row_factory=dict_row) as cursor:
        return {
            part: cursor.execute(QUERIES[part], [list(drivers)]).fetchall()
            for part in parts or QUERIES
        }


def rejected_in(final_state: FinalState) -> set[tuple[str, int]]:
    """Return the (driver, seq) of every rejected fix."""
    return {
        (row["driver_id"], seq)
        for row in final_state["boots"]
        for span in row["rejected"]
        for seq in range(span.lower, span.upper)
    }


def compare(name: str, seen: FinalState, expected: FinalState) -> list[str]:
    """Return the parts in which two databases differ, with the first difference of each."""
    failures = []
    for part, rows in expected.items():
        if seen[part] != rows:
            pairs = zip(seen[part], rows, strict=False)
            first = next((pair for pair in pairs if pair[0] != pair[1]), "a row is missing")
            failures.append(f"{name}: {part} differs ({len(seen[part])}, {len(rows)}): {first}")
    return failures


def evidence_by_day(final_state: FinalState) -> list[tuple[object, ...]]:
    """Return the evidence and the orders' states, by day."""
    evidence = [
        (row["driver_id"].rpartition("-")[2], row["state"], row["occurred_at"])
        for row in final_state["evidence"]
    ]
    states = [(row["driver_id"].rpartition("-")[2], row["state"]) for row in final_state["states"]]
    return [*evidence, *states]


def content(row: dict[str, Any]) -> tuple[str, ...]:
    """Return a fix without its identity and arrival."""
    excluded = ("driver_id", "boot", "seq", "received_at")
    return tuple(str(value) for name, value in row.items() if name not in excluded)
