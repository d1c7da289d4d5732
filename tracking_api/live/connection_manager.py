"""All viewers of this process: counted, limited, kept alive, checked, disconnected.

Once a second a tenth of them gets a heartbeat, and a fifth has its tokens looked up, all in one
statement: a revoked token ends its streams within 5 s.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence

from prometheus_client import Counter as Metric
from prometheus_client import Gauge

from doorstep.errors import DoorstepError, TooManyRequests, Unavailable
from doorstep.store.records import Token
from doorstep.telemetry import get_logger
from tracking_api.live.frames import end_frame
from tracking_api.live.viewer import Viewer

VIEWERS = Gauge("doorstep_live_viewers", "Open streams.")
DISCONNECTS = Metric("doorstep_live_disconnects", "Streams closed by the server.", ["reason"])

HEARTBEAT_INTERVAL_S = 10  # proxies time out after 60 s of silence
STALLED_AFTER_S = 5.0
# All viewers of a process that was killed reconnect over this time, of which two cores admit some
# 5,000 a second.
MIN_RECONNECT_MS = 1_500
RECONNECT_MS_PER_VIEWER = 0.36
MAX_RECONNECT_MS = 8_000
MAX_VIEWERS_PER_TOKEN = 50  # several phones of one household

FindTokens = Callable[[Sequence[bytes]], Awaitable[Mapping[bytes, Token]]]

LINK_ENDED = end_frame("link_ended")


class TooManyViewers(Unavailable):
    """This process has reached its maximum number of viewers."""

    problem = "too-many-viewers"
    retry_after_s = 5


class ConnectionManager:
    """Every viewer, at most `max_viewers`: each holds a file descriptor.

    Customers' links are not checked here, nor any token without `find_tokens`.
    """

    def __init__(
        self,
        find_tokens: FindTokens | None,
        max_viewers: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._find_tokens = find_tokens
        self._max_viewers = max_viewers
        self._clock = clock
        self._buckets: list[set[Viewer]] = [set() for _ in range(HEARTBEAT_INTERVAL_S)]
        self._paused_since: dict[Viewer, float] = {}
        self._viewers_by_token: Counter[bytes] = Counter()
        self._count = 0
        self._ticks = 0

    def __len__(self) -> int:
        return self._count

    def check_capacity(self, token_sha256: bytes, *, staff: bool) -> None:
        """Check whether one more viewer is allowed. Raises TooManyViewers, TooManyRequests."""
        if self._count >= self._max_viewers:
            raise TooManyViewers
        if not staff and self._viewers_by_token[token_sha256] >= MAX_VIEWERS_PER_TOKEN:
            raise TooManyRequests(HEARTBEAT_INTERVAL_S)

    def draw_retry_ms(self) -> int:
        """Return a random delay before a viewer reconnects, longer the more viewers there are."""
        longest_ms = MIN_RECONNECT_MS + self._count * RECONNECT_MS_PER_VIEWER
        return int(min(longest_ms, MAX_RECONNECT_MS) * random.uniform(0.5, 1))

    def add(self, viewer: Viewer) -> None:
        """Add a viewer."""
        viewer.bucket = self._count % HEARTBEAT_INTERVAL_S
        self._buckets[viewer.bucket].add(viewer)
        self._viewers_by_token[viewer.token_sha256] += 1
        self._count += 1
        VIEWERS.set(self._count)

    def remove(self, viewer: Viewer) -> None:
        """Remove a viewer whose connection is closed."""
        self._paused_since.pop(viewer, None)
        if viewer not in self._buckets[viewer.bucket]:
            return
        self._buckets[viewer.bucket].discard(viewer)
        self._count -= 1
        VIEWERS.set(self._count)
        self._viewers_by_token[viewer.token_sha256] -= 1
        if not self._viewers_by_token[viewer.token_sha256]:
            del self._viewers_by_token[viewer.token_sha256]

    def mark_paused(self, viewer: Viewer) -> None:
        """Note that a viewer's send buffer is full."""
        self._paused_since.setdefault(viewer, self._clock())

    def mark_resumed(self, viewer: Viewer) -> None:
        """Note that a viewer's send buffer has room again."""
        self._paused_since.pop(viewer, None)

    async def run(self) -> None:
        """Maintain the viewers until cancelled."""
        while True:
            await asyncio.sleep(1)
            try:
                self.disconnect_stalled()
                await self.maintain_next_bucket()
            except DoorstepError:
                pass  # the database is unavailable: these tokens are checked in 5 s
            except Exception:  # noqa: BLE001 - the task's boundary
                get_logger().exception("live_connections_defect")

    def disconnect_stalled(self) -> None:
        """Disconnect viewers that have read nothing for STALLED_AFTER_S."""
        now_s = self._clock()
        for viewer, since_s in list(self._paused_since.items()):
            if now_s - since_s >= STALLED_AFTER_S:
                DISCONNECTS.labels("stalled").inc()
                viewer.disconnect()

    async def maintain_next_bucket(self) -> None:
        """Send a tenth of the viewers a heartbeat; check the tokens of a fifth, and end them."""
        self._ticks += 1
        viewers = list(self._buckets[self._ticks % HEARTBEAT_INTERVAL_S])
        for viewer in viewers:
            if not viewer.closing:
                viewer.heartbeat()
        # half a round later too, so that each token is checked every HEARTBEAT_INTERVAL_S / 2
        viewers += self._buckets[(self._ticks + HEARTBEAT_INTERVAL_S // 2) % HEARTBEAT_INTERVAL_S]
        viewers = [viewer for viewer in viewers if not viewer.is_polled]
        tokens = list({viewer.token_sha256 for viewer in viewers})
        if not tokens or self._find_tokens is None:
            return
        valid = await self._find_tokens(tokens)
        for viewer in viewers:
            if viewer.token_sha256 not in valid and not viewer.closing:
                DISCONNECTS.labels("link_ended").inc()
                viewer.finish(LINK_ENDED)

    def close(self) -> None:
        """Close every connection; the viewers reconnect to another process."""
        for bucket in self._buckets:
            for viewer in list(bucket):
                viewer.transport.close()
