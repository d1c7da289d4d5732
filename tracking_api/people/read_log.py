"""What staff read, collected per person and written to the audit once a minute."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field

from doorstep.errors import DoorstepError
from doorstep.telemetry import get_logger
from tracking_api.people.queries import PeopleStore

FLUSH_INTERVAL_S = 60.0
MAX_SUBJECTS = 200  # ids named in one entry; further ones are only counted


@dataclass(slots=True)
class PersonReads:
    """The reads of one person since the last flush."""

    routes: Counter[str] = field(default_factory=Counter)
    subjects: set[str] = field(default_factory=set)

    def to_json(self) -> dict[str, object]:
        """Return the detail of the audit's entry."""
        return {"reads": dict(self.routes), "subjects": sorted(self.subjects)}


class ReadLog:
    """Collects reads in memory; `run` writes them."""

    def __init__(self, store: PeopleStore) -> None:
        self._store = store
        self._reads: dict[str, PersonReads] = {}

    def add(self, who: str, route: str, *subjects: str) -> None:
        """Count a read of a route. `subjects` are the drivers or orders that it names."""
        reads = self._reads.setdefault(who, PersonReads())
        reads.routes[route] += 1
        if len(reads.subjects) < MAX_SUBJECTS:
            reads.subjects.update(subjects)

    async def flush(self) -> None:
        """Write one entry per person. What cannot be written stays for the next time."""
        for who in list(self._reads):
            reads = self._reads.pop(who)  # further ones are for the next time
            try:
                await self._store.record_audit(who, "read", None, reads.to_json())
            except BaseException:
                later = self._reads.setdefault(who, PersonReads())
                later.routes.update(reads.routes)
                later.subjects |= reads.subjects
                raise

    async def run(self) -> None:
        """Write once a minute until cancelled."""
        while True:
            await asyncio.sleep(FLUSH_INTERVAL_S)
            await self.flush_or_log()

    async def flush_or_log(self) -> None:
        """Write, or log that the database is unavailable."""
        try:
            await self.flush()
        except DoorstepError as exc:
            get_logger().warning("audit_reads_not_written", error=str(exc))
