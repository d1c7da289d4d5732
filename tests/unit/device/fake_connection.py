"""A connection that records what the device sends, in place of MqttConnection."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any, ClassVar

from device.connection import Login


class FakeConnection:
    newest: ClassVar[FakeConnection]

    def __init__(
        self,
        login: Login,
        will: bytes,
        on_puback: Callable[[int], None],
        on_message: Callable[[str, bytes], None],
    ) -> None:
        FakeConnection.newest = self
        self.lost = asyncio.Event()
        self.sent: list[tuple[int, str, Any]] = []
        self.will = will
        self._on_puback, self._on_message = on_puback, on_message

    async def open(self) -> None: ...

    def subscribe(self, topics: list[str]) -> None:
        self.topics = topics

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> int:
        self.sent.append((len(self.sent), topic.rpartition("/")[2], json.loads(payload)))
        return len(self.sent) - 1

    def tick(self) -> None: ...

    def close(self) -> None:
        self.lost.set()

    async def disconnect(self) -> None:
        self.lost.set()

    def puback(self, message_id: int) -> None:
        self._on_puback(message_id)

    def puback_all(self) -> None:
        for message_id, _, _ in list(self.sent):
            self.puback(message_id)

    def ack(self, boot: str, seq: int, missing: list[list[int]] | None = None) -> None:
        payload = {"boot": boot, "seq": seq, "missing": missing or []}
        self._on_message("doorstep/v1/drivers/anna/ack", json.dumps(payload).encode())

    def positions(self) -> list[Any]:
        return [payload for _, leaf, payload in self.sent if leaf == "position"]

    def seqs(self) -> list[int]:
        fixes = [one if isinstance(one, list) else [one] for one in self.positions()]
        return [fix["seq"] for batch in fixes for fix in batch]
