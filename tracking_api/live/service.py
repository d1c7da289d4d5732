"""The live part of the process: its crowd, hub, fleet and feed, started and stopped together."""

from __future__ import annotations

import asyncio

from doorstep.kafka.access import KafkaAccess
from tracking_api.database import Store
from tracking_api.live.connection_manager import ConnectionManager
from tracking_api.live.feed import Feed, Heard
from tracking_api.live.fleet_channel import FleetChannel
from tracking_api.live.hub import Hub
from tracking_api.live.topic_follower import Topics
from tracking_api.series.live import SeriesStreams
from tracking_api.settings import MOST_VIEWERS, Settings
from tracking_api.track.road_eta import EstimateArrival
from tracking_api.track.straight_eta import estimate_arrival


class Live:
    """Everything that goes on while people look on."""

    def __init__(
        self,
        store: Store,
        most_viewers: int = MOST_VIEWERS,
        topics: Topics | None = None,
        series_topic: str = "series",
        estimate: EstimateArrival = estimate_arrival,
    ) -> None:
        self.topics = topics or Topics(KafkaAccess("127.0.0.1:1"), ())
        self.series = SeriesStreams(self.topics, series_topic)
        self.crowd = ConnectionManager(store.find_tokens, most_viewers)
        self.hub = Hub(store, estimate=estimate)
        self.fleet = FleetChannel(store)
        self._feed: Feed | None = None
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def kafka_is_there(self) -> bool:
        """Whether the feed hears anything. Without it orders are looked at every few seconds."""
        return self._feed is not None and self._feed.connected

    def start(self, settings: Settings | None) -> None:
        """Begin; with settings, listen to Kafka too."""
        running = (self.hub.run(), self.crowd.run(), self.fleet.run())
        self._tasks = [asyncio.create_task(one) for one in running]
        if settings is not None:
            loop = asyncio.get_running_loop()

            def take(heard: Heard) -> None:  # called in the feed's thread
                loop.call_soon_threadsafe(self._take, heard)

            self._feed = Feed(
                settings.kafka,
                updates_topic=settings.kafka_updates_topic,
                positions_topic=settings.kafka_positions_topic,
                take=take,
                watched=self.hub.watched_drivers,
                wants_rows=lambda: self.fleet.is_watched,
            )
            self._feed.start()

    async def close(self) -> None:
        """Stop, and close every stream."""
        if self._feed is not None:
            await asyncio.to_thread(self._feed.close)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.to_thread(self.topics.close)
        self.crowd.close()

    def _take(self, heard: Heard) -> None:
        self.hub.heard_drivers(heard.drivers)
        for order_id, order_seq in heard.orders.items():
            self.hub.heard_order(order_id, order_seq)
        self.fleet.hear_orders(heard.orders, heard.on_orders)
        self.fleet.hear(heard.rows)
