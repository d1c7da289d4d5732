"""All viewers of this process, whatever they watch: counted, kept alive, cut, checked.

Once a second a tenth of them gets a heartbeat and has its tokens looked up, all in one statement.
"""

from __future__ import annotations

import asyncio
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
CUT = Metric("doorstep_live_cut", "Viewers that were cut, and why.", ["why"])

HEARTBEAT_EVERY_S = 10  # a proxy gives up after 60 s of silence, a browser never
STALLED_S = 5.0
VIEWERS_OF_A_TOKEN = 50  # a family looks on from every phone

FindTokens = Callable[[Sequence[bytes]], Awaitable[Mapping[bytes, Token]]]

_LINK_ENDED = end_frame("link_ended")


class TooManyViewers(Unavailable):
    """This process has as many viewers as it can take."""

    problem = "too-many-viewers"
    retry_after_s = 5


class ConnectionManager:
    """Every viewer. `most` of them at once; each holds a file descriptor."""

    def __init__(
        self,
        find_tokens: FindTokens,
        most: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._find_tokens = find_tokens
        self._most = most
        self._clock = clock
        self._buckets: list[set[Viewer]] = [set() for _ in range(HEARTBEAT_EVERY_S)]
        self._slow: dict[Viewer, float] = {}
        self._of_token: Counter[bytes] = Counter()
        self._count = 0
        self._beats = 0

    def __len__(self) -> int:
        return self._count

    def check_room(self, token_sha256: bytes, *, staff: bool) -> None:
        """Say whether one more may look on. Raises TooManyViewers, TooManyRequests."""
        if self._count >= self._most:
            raise TooManyViewers
        if not staff and self._of_token[token_sha256] >= VIEWERS_OF_A_TOKEN:
            raise TooManyRequests(HEARTBEAT_EVERY_S)

    def join(self, viewer: Viewer) -> None:
        """Keep a viewer from now on."""
        viewer.bucket = self._count % HEARTBEAT_EVERY_S
        self._buckets[viewer.bucket].add(viewer)
        self._of_token[viewer.token_sha256] += 1
        self._count += 1
        VIEWERS.set(self._count)

    def leave(self, viewer: Viewer) -> None:
        """Forget a viewer whose connection is gone."""
        self._slow.pop(viewer, None)
        if viewer not in self._buckets[viewer.bucket]:
            return
        self._buckets[viewer.bucket].discard(viewer)
        self._count -= 1
        VIEWERS.set(self._count)
        self._of_token[viewer.token_sha256] -= 1
        if not self._of_token[viewer.token_sha256]:
            del self._of_token[viewer.token_sha256]

    def slow(self, viewer: Viewer) -> None:
        """A viewer's connection takes no more."""
        self._slow.setdefault(viewer, self._clock())

    def fast(self, viewer: Viewer) -> None:
        """It takes more again."""
        self._slow.pop(viewer, None)

    async def run(self) -> None:
        """Look after the viewers, for ever."""
        while True:
            await asyncio.sleep(1)
            self.cut_stalled()
            try:
                await self.look_after_some()
            except DoorstepError:
                pass  # the database is away: tokens are looked up in ten seconds again
            except Exception:  # noqa: BLE001 - the task goes on
                get_logger().exception("live_crowd_defect")

    def cut_stalled(self) -> None:
        """Cut whoever has read nothing for 5 s."""
        now = self._clock()
        for viewer, since in list(self._slow.items()):
            if now - since >= STALLED_S:
                CUT.labels("stalled").inc()
                viewer.cut()

    async def look_after_some(self) -> None:
        """Send a tenth of the viewers their heartbeat; end those whose token is good no more."""
        self._beats += 1
        some = list(self._buckets[self._beats % HEARTBEAT_EVERY_S])
        for viewer in some:
            if not viewer.closing:
                viewer.heartbeat()
        tokens = list({viewer.token_sha256 for viewer in some})
        if not tokens:
            return
        good = await self._find_tokens(tokens)
        for viewer in some:
            if viewer.token_sha256 not in good and not viewer.closing:
                CUT.labels("link_ended").inc()
                viewer.finish(_LINK_ENDED)

    def close(self) -> None:
        """Close every connection: the process stops, and the viewers come back to another."""
        for bucket in self._buckets:
            for viewer in list(bucket):
                viewer.transport.close()
