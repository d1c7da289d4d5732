"""The live part of the process: connections, hub, fleet and feed, started and stopped together."""

from __future__ import annotations

import asyncio
from collections import ChainMap
from collections.abc import Callable, Container, Iterable, Sequence
from typing import TYPE_CHECKING
from uuid import UUID

from confluent_kafka import Message

from doorstep.http.startup import start_task
from doorstep.kafka.access import KafkaAccess
from tracking_api.live.admission import StreamAdmission
from tracking_api.live.connection_manager import ConnectionManager
from tracking_api.live.feed import Feed, FeedBatch
from tracking_api.live.fleet_channel import FleetChannel
from tracking_api.live.hub import Hub
from tracking_api.live.topic_follower import TopicStreams
from tracking_api.live.watch_reporter import WatchReporter
from tracking_api.series.streams import SeriesStreams
from tracking_api.settings import MAX_VIEWERS, Settings
from tracking_api.stores import Stores
from tracking_api.track.road_eta import EstimateArrival
from tracking_api.track.straight_eta import estimate_arrival
from tracking_api.track.visibility import TrackLink

if TYPE_CHECKING:
    from doorstep.traces.exporter import SpanWriter


class Live:
    """Everything that streams need."""

    def __init__(
        self,
        stores: Stores,
        max_viewers: int = MAX_VIEWERS,
        topics: TopicStreams | None = None,
        series_topic: str = "series",
        estimate: EstimateArrival = estimate_arrival,
    ) -> None:
        self.topics = topics or TopicStreams(KafkaAccess("127.0.0.1:1"), ())
        self.series = SeriesStreams(self.topics, series_topic)
        serves_staff, serves_customers = stores.serves != "customers", stores.serves != "staff"
        # Without staff every stream is a customer's, which ends when a poll finds its link bad.
        find_tokens = stores.tokens.find_tokens if serves_staff else None
        self.connections = ConnectionManager(find_tokens, max_viewers)
        self.customers = Hub(stores.customers, estimate=estimate)
        self.staff = Hub(stores.track, estimate=estimate)
        self.hubs = (self.customers,) * serves_customers + (self.staff,) * serves_staff
        self.customer_watch = WatchReporter(stores.customers, lambda: self.customers.links)
        self.staff_watch = WatchReporter(stores.track, lambda: self.staff.links)
        self.admission = StreamAdmission(self.customers, self.connections)
        self.fleet = FleetChannel(stores.fleet)
        self.on_orders: Callable[[Iterable[UUID]], None] = lambda _: None
        self._feed: Feed | None = None
        self._spans: SpanWriter | None = None
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def is_kafka_connected(self) -> bool:
        """Whether the feed is connected. Without it orders are polled every few seconds."""
        return self._feed is not None and self._feed.connected

    @property
    def watched_drivers(self) -> Container[str]:
        """The drivers of orders with viewers; the feed's thread tests which positions matter."""
        return ChainMap(*(hub.watched_drivers for hub in self.hubs))

    def hub_for(self, link: TrackLink) -> Hub:
        """Return the hub of a link: customers' reads as the database's role `customer`."""
        return self.staff if link.is_staff else self.customers

    def note_watched(self, link: TrackLink) -> None:
        """Note that a customer read an order with GET: its courier then reports without delay."""
        self.customer_watch.note(link)

    def start(self, settings: Settings | None) -> None:
        """Start; with settings, consume from Kafka too."""
        hubs = (hub.run() for hub in self.hubs)
        watches = (self.customer_watch.run(), self.staff_watch.run())
        running = (*hubs, *watches, self.connections.run(), self.fleet.run())
        self._tasks = [start_task(one) for one in running]
        if settings is not None:
            loop = asyncio.get_running_loop()

            def on_batch(batch: FeedBatch) -> None:  # called in the feed's thread
                loop.call_soon_threadsafe(self._apply, batch)

            self._feed = Feed(
                settings.kafka,
                updates_topic=settings.kafka_updates_topic,
                positions_topic=settings.kafka_positions_topic,
                on_batch=on_batch,
                watched_drivers=self.watched_drivers,
                needs_positions=lambda: self.fleet.is_watched,
                on_pushed=self._make_push_tracer(settings),
            )
            self._feed.start()

    def _make_push_tracer(self, settings: Settings) -> Callable[[Sequence[Message]], None] | None:
        self._spans = settings.open_spans("tracking_api")
        if self._spans is None:
            return None
        from tracking_api.live.traced_feed import push_tracer

        return push_tracer(self._spans)

    async def close(self) -> None:
        """Stop, and close every stream."""
        if self._feed is not None:
            await asyncio.to_thread(self._feed.close)
        if self._spans is not None:
            await asyncio.to_thread(self._spans.close)
        self.admission.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.to_thread(self.topics.close)
        self.connections.close()

    def _apply(self, batch: FeedBatch) -> None:
        for hub in self.hubs:
            hub.drivers_moved(batch.moved_drivers)
            for order_id, order_seq in batch.orders.items():
                hub.order_changed(order_id, order_seq)
        self.on_orders(batch.orders)
        self.fleet.orders_changed(batch.orders, batch.order_drivers)
        self.fleet.positions_changed(batch.positions)
