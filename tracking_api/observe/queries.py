"""The offsets of Kafka's records that the database holds: those of driver_events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from doorstep.store.deadline import fetch_all
from doorstep.store.pool import Pool
from sql import query

StoredOffsets = Mapping[tuple[str, int], int]
"""The next offset of a topic's partition, by (topic_id, partition)."""


class OffsetStore(Protocol):
    """Stored offsets. Errors are DoorstepErrors."""

    async def read_stored_offsets(
        self, cluster_id: str, topic_ids: Sequence[str]
    ) -> StoredOffsets: ...


@dataclass(frozen=True, slots=True)
class OffsetQueries:
    """The OffsetStore on PostgreSQL."""

    pool: Pool

    async def read_stored_offsets(self, cluster_id: str, topic_ids: Sequence[str]) -> StoredOffsets:
        """Read the next offset of each partition of these topics."""
        parameters = {"cluster_id": cluster_id, "topic_ids": list(topic_ids)}
        rows = await fetch_all(self.pool, query("read_stored_offsets"), parameters)
        return {(topic_id, partition): offset for topic_id, partition, offset in rows}
