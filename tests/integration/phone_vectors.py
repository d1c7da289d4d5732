"""The requests and messages of phone apps in tests/phones/vectors.json, dated today."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

VECTORS_FILE = Path(__file__).parents[1] / "phones" / "vectors.json"
_EPOCH_S = re.compile(r"(?<![0-9])179[45][0-9]{6}(?![0-9.])")
_ISO = re.compile(r"2026-11-21T[0-9:.]+Z")


@dataclass(frozen=True)
class Vector:
    """One input and what is to become of it. `shifted` moves its instants."""

    name: str
    client: str
    transport: str
    method: str
    path: str
    topic: str
    headers: dict[str, Any]
    body: str
    received_at: datetime
    expect: dict[str, Any]
    after: list[str] = field(default_factory=list)  # vectors that are stored before
    is_database_away: bool = False

    def shifted(self, by: timedelta) -> Vector:
        """Return the same input, `by` later."""
        values = dict(self.__dict__)
        values["received_at"] = self.received_at + by
        for name in ("body", "path"):
            values[name] = _shift(values[name], by)
        values["expect"] = json.loads(_shift(json.dumps(self.expect), by))
        return Vector(**values)


def _shift(text: str, by: timedelta) -> str:
    text = _EPOCH_S.sub(lambda found: str(int(found[0]) + round(by.total_seconds())), text)

    def later(found: re.Match[str]) -> str:
        instant = datetime.fromisoformat(found[0]) + by
        return instant.isoformat(timespec="milliseconds").replace("+00:00", "Z")

    return _ISO.sub(later, text)


def read_vectors() -> dict[str, Vector]:
    """Read all vectors by their ids."""
    return {
        one["id"]: Vector(
            name=one["id"],
            client=one["client"],
            transport=one["transport"],
            method=one.get("method", ""),
            path=one.get("path", ""),
            topic=one.get("topic", ""),
            headers=one["headers"],
            body=one["body"],
            received_at=datetime.fromisoformat(one["received_at"]),
            expect=one["expect"],
            after=one.get("given", {}).get("stored", []),
            is_database_away=one.get("given", {}).get("database") == "away",
        )
        for one in json.loads(VECTORS_FILE.read_text(encoding="utf-8"))
    }


def now_instead_of(vector: Vector) -> timedelta:
    """Return how much later than the vector's arrival it is now, in whole seconds."""
    since = datetime.now(UTC) - vector.received_at
    return timedelta(seconds=round(since.total_seconds()))
