"""The wire and the platform that test_watermark.py models."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from typing import Any

from device.connection import Login

PERIOD_S = 30.0
DAY_S = 86_400.0
JOURNAL_MAX_FIXES = 12
MAX_RESENDS = 3  # before a fix is given up: docs/explanation/watermark.md
MAX_GAPS = 64  # in an ack, as in sql/schema/41_boot_seqs.sql
MAX_PARKED = 3
HEAL_PERIODS = 24  # four acks for a poisoned fix, each after an ack timeout
QUIET_HEAL_PERIODS = 3 * 2**5 + HEAL_PERIODS  # the ack timeout: 3 periods, doubled 5 times


class Wire:
    """Replaces `Connection`: holds published messages until they are delivered or lost."""

    def __init__(
        self,
        login: Login,
        will: bytes,
        on_puback: Callable[[int], None],
        on_message: Callable[[str, bytes], None],
    ) -> None:
        self.lost = asyncio.Event()
        self.positions: list[list[dict[str, Any]]] = []
        self.statuses: list[dict[str, Any]] = []
        self.sends: Counter[tuple[str, int]] = Counter()
        self.waiting: list[int] = []
        self._next_id = 0
        self._on_puback, self._on_message = on_puback, on_message

    async def open(self) -> None: ...

    def subscribe(self, topics: list[str]) -> None: ...

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> int:
        value = json.loads(payload)
        if topic.endswith("/status"):
            self.statuses.append(value)
            return 0
        entries = value if isinstance(value, list) else [value]
        self.positions.append(entries)
        self.sends.update((one["boot"], one["seq"]) for one in entries if not one.get("void"))
        self._next_id += 1
        self.waiting.append(self._next_id)
        return self._next_id

    def puback(self) -> None:
        while self.waiting:
            self._on_puback(self.waiting.pop(0))

    def ack(self, payload: bytes) -> None:
        self._on_message("doorstep/v1/drivers/anna/ack", payload)

    def tick(self) -> None: ...

    def close(self) -> None:
        self.lost.set()


class Platform:
    """Replaces the database: stored fixes and refused seqs of each boot."""

    def __init__(self) -> None:
        self.stored: dict[tuple[str, int], int] = {}
        self.refused: set[tuple[str, int]] = set()
        self.refused_fixes: set[int] = set()
        self.is_flooded = False  # every second fix is over the quota
        self.parked: dict[tuple[str, int], dict[str, Any]] = {}
        self.held: Counter[str] = Counter()
        self._turn = False

    def take(self, entry: dict[str, Any], now_s: float) -> None:
        self._turn = not self._turn
        if self.is_flooded and self._turn and not entry.get("poison"):
            self.park(entry)
        else:
            self.settle(entry, now_s)

    def park(self, entry: dict[str, Any]) -> None:
        key = entry["boot"], entry["seq"]
        if key in self.parked or len(self.parked) < MAX_PARKED:
            self.parked.setdefault(key, entry)
        else:
            self.held[entry["boot"]] += 1

    def drain(self, now_s: float, count: int) -> None:
        for key in list(self.parked)[:count]:
            self.settle(self.parked.pop(key), now_s)

    def settle(self, entry: dict[str, Any], now_s: float) -> None:
        key = entry["boot"], entry["seq"]
        if entry.get("poison") or key in self.stored:
            return  # unreadable, so its seq is unknown; or a duplicate
        if entry.get("void"):
            self.refused.add(key)
        elif entry["fix_at"] / 1000 < now_s - DAY_S:
            self.refused.add(key)
            self.refused_fixes.add(entry["number"])
        else:
            self.refused.discard(key)
            self.stored[key] = entry["number"]

    def watermark(self, boot: str) -> bytes | None:
        settled = {seq for of, seq in [*self.stored, *self.refused] if of == boot}
        if not settled:
            return None
        seq, gaps = max(settled), []
        for missing in range(1, seq):
            if missing in settled:
                continue
            if gaps and gaps[-1][1] == missing - 1:
                gaps[-1][1] = missing
            elif len(gaps) == MAX_GAPS:
                seq = missing - 1
                break
            else:
                gaps.append([missing, missing])
        ack = {"boot": boot, "seq": seq, "missing": gaps}
        ack |= {"hold_s": 2 * PERIOD_S} if self.parked else {}
        ack |= {"held": self.held[boot]} if self.held[boot] else {}
        return json.dumps(ack).encode()
