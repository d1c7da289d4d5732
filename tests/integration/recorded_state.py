"""What driver_events has recorded, as tests compare it before and after a replay."""

from __future__ import annotations

from tests.database import Database


def everything(database: Database) -> dict[str, list[dict[str, object]]]:
    """Return all rows that a replay must not change, `recorded_at` included.

    A replayed fix is charged to its driver's quota again: `quota_at` is left out.
    """
    tables = "fix_history evidence orders assignment order_event order_command driver_state"
    return {
        table: sorted(
            (
                {name: value for name, value in row.items() if name != "quota_at"}
                for row in database.rows(f"SELECT * FROM doorstep.{table}")
            ),
            key=repr,
        )
        for table in (*tables.split(), "driver_cell", "driver_boot", "parked_fix")
    }


def offsets(database: Database) -> dict[int, int]:
    """Return the next offsets of driver-pos, the topic with several partitions."""
    rows = database.rows(
        "SELECT partition, next_offset FROM doorstep.kafka_offset WHERE topic_id IN"
        " (SELECT topic_id FROM doorstep.kafka_offset GROUP BY topic_id HAVING count(*) > 1)"
    )
    return {row["partition"]: row["next_offset"] for row in rows}


def stored(database: Database) -> list[tuple[str, str, int]]:
    """Return the (driver_id, boot, seq) of each recorded fix."""
    rows = database.rows("SELECT driver_id, boot, seq FROM doorstep.fix_history ORDER BY 1, 2, 3")
    return [(row["driver_id"], row["boot"], row["seq"]) for row in rows]
