"""The delays after which viewers reconnect: they spread the load of a restarted process."""

from __future__ import annotations

import pytest

from tracking_api.live.connection_manager import ConnectionManager
from tracking_api.live.viewer import Viewer


def manager_of(viewers: int) -> ConnectionManager:
    manager = ConnectionManager(None, max_viewers=100_000)
    for _ in range(viewers):
        manager.add(Viewer(manager, b"", lambda _viewer: None))
    return manager


@pytest.mark.parametrize(
    ("viewers", "shortest_ms", "longest_ms"),
    [(0, 750, 1_500), (500, 840, 1_680), (18_000, 3_990, 7_980), (40_000, 4_000, 8_000)],
)
def test_retry__by_the_number_of_viewers__is_spread_over_a_longer_time(
    viewers: int, shortest_ms: int, longest_ms: int
) -> None:
    manager = manager_of(viewers)
    drawn = [manager.draw_retry_ms() for _ in range(2_000)]
    middle = (shortest_ms + longest_ms) / 2
    assert shortest_ms <= min(drawn) < middle < max(drawn) <= longest_ms
    assert sum(value > middle for value in drawn) in range(800, 1_200)
