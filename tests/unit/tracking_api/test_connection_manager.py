"""Whose streams the connection manager ends: staff's, by their tokens. A hub polls customers'.

Viewers are replaced by fakes, and the database by a function that finds no token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from doorstep.store.records import Token
from tracking_api.live.connection_manager import (
    HEARTBEAT_INTERVAL_S,
    LINK_ENDED,
    ConnectionManager,
)
from tracking_api.live.frames import Frame


class FakeViewer:
    closing = False
    bucket = 0

    def __init__(self, *, is_polled: bool) -> None:
        self.is_polled = is_polled
        self.token_sha256 = b"t"
        self.heartbeats = 0
        self.ended: list[Frame] = []

    def heartbeat(self) -> None:
        self.heartbeats += 1

    def finish(self, frame: Frame) -> None:
        self.ended.append(frame)
        self.closing = True


async def finds_nothing(_: Sequence[bytes]) -> Mapping[bytes, Token]:
    return {}


@pytest.mark.parametrize(("is_polled", "ended"), [(False, [LINK_ENDED]), (True, [])])
async def test_maintain__token_that_is_not_found__ends_staffs_streams_only(is_polled, ended):
    connections = ConnectionManager(finds_nothing, 10)
    viewer = FakeViewer(is_polled=is_polled)
    connections.add(viewer)
    for _ in range(HEARTBEAT_INTERVAL_S):
        await connections.maintain_next_bucket()
    assert viewer.ended == ended
    assert is_polled == (viewer.heartbeats > 0)
