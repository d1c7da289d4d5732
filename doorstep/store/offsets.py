"""The next offsets of the Kafka partitions, as stored by driver_events."""

from __future__ import annotations

from typing import Any

import psycopg

from doorstep.store.error_mapping import translated
from sql import query


def read_offsets(conn: psycopg.Connection[Any], cluster_id: str, topic_id: str) -> dict[int, int]:
    """Return the next offset of each partition."""
    parameters = {"cluster_id": cluster_id, "topic_id": topic_id}
    with translated():
        return dict(conn.execute(query("read_offsets"), parameters).fetchall())
