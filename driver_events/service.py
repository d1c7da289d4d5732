"""Builds the clients and threads of driver_events, and runs them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from doorstep.clock_guard import ClockGuard, watched_clock
from doorstep.store import admin
from doorstep.telemetry import serve_telemetry
from driver_events.acks import TICK_S, AckPublisher, AckSchedule, watermark_reader
from driver_events.compaction_worker import EVERY_S as HISTORY_EVERY_S
from driver_events.compaction_worker import CompactionWorker
from driver_events.consumer import MAX_POLL_INTERVAL_S, PartitionConsumer
from driver_events.dead_letter_limit import DeadLetterLimit
from driver_events.demand import EVERY_S as DEMAND_EVERY_S
from driver_events.demand import DemandFollower
from driver_events.device_commands import CommandPublisher
from driver_events.mqtt_publisher import MqttPublisher
from driver_events.notices import EVERY_S as NOTICES_EVERY_S
from driver_events.notices import NoticeWorker
from driver_events.offers import EVERY_S as OFFERS_EVERY_S
from driver_events.offers import OfferWorker
from driver_events.outbox import OutboxPublisher, ParkedRetry
from driver_events.patch_sink import PatchSink
from driver_events.phone_modes import EVERY_S as PHONE_MODES_EVERY_S
from driver_events.phone_modes import PhoneModePublisher
from driver_events.phone_processor import PhoneWriter
from driver_events.positions import LiveFeed
from driver_events.post_commit import CommitFanout
from driver_events.processor import Processor
from driver_events.recorder import Connection, DatabaseRecorder
from driver_events.retention_worker import EVERY_S as RETENTION_EVERY_S
from driver_events.retention_worker import RetentionWorker
from driver_events.series_processor import (
    EXPIRE_EVERY_S,
    SeriesWriter,
    expire_old_points,
)
from driver_events.settings import DriverEventsSettings
from driver_events.stops import EVERY_S as STOPS_EVERY_S
from driver_events.stops import StopWorker
from driver_events.topic_writer import POLL_TIMEOUT_S
from driver_events.watchdog import EVERY_S as WATCH_EVERY_S
from driver_events.watchdog import Watchdog
from driver_events.worker import Worker

if TYPE_CHECKING:
    from driver_events.tracing import Tracing

OUTBOX_EVERY_S = 0.1  # the longest delay of an order change by command
PARKED_EVERY_S = 1.0
COMMANDS_EVERY_S = 1.0
PARTITIONS_EVERY_S = 3600.0
DAYS_AHEAD = 2
PHONE_FETCH_WAIT_MS = 100  # 10 fetches a second; a batch of phones grows for 250 ms anyway


def run_service(settings: DriverEventsSettings, stopping: threading.Event) -> None:
    """Run until `stopping`. Raises the exception of a failed thread."""
    sender = MqttPublisher(
        settings.mqtt_url, settings.mqtt_username, settings.mqtt_password.get_secret_value()
    )
    url = settings.database_url.get_secret_value()
    tracing = _make_tracing(settings)
    acks = AckPublisher(
        AckSchedule(settings.ack_every_s),
        watermark_reader(Connection(url, "driver_events acks")),
        tracing.sender(sender) if tracing else sender,
        settings.ack_every_s,
    )
    # A short ACK_EVERY_S, as in demos and tests, needs a shorter tick.
    workers = {"acks": Worker("acks", acks.send_due, min(TICK_S, settings.ack_every_s / 4))}
    try:
        if settings.fix_sink == "driver_api":
            _run_patch_sink(settings, acks, sender, workers, stopping)
        else:
            _run_database_sink(settings, url, acks, sender, tracing, workers, stopping)
    finally:
        for worker in workers.values():
            worker.stop()
        sender.close()
        if tracing:
            tracing.spans.close()


def _run_patch_sink(
    settings: DriverEventsSettings,
    acks: AckPublisher,
    sender: MqttPublisher,
    workers: dict[str, Worker],
    stopping: threading.Event,
) -> None:
    watched_clock()
    sink = PatchSink(settings, acks.request)

    def ready() -> Mapping[str, bool]:
        return {"driver_api": sink.is_healthy, "mqtt": sender.is_connected}

    telemetry = serve_telemetry(
        settings.driver_events_bind, ready, lambda: _is_recent(sink.last_run_s)
    )
    try:
        sink.run(stopping, _start(workers))
    finally:
        telemetry.close()


def _run_database_sink(
    settings: DriverEventsSettings,
    url: str,
    acks: AckPublisher,
    sender: MqttPublisher,
    tracing: Tracing | None,
    workers: dict[str, Worker],
    stopping: threading.Event,
) -> None:
    clock = watched_clock()
    outbox = OutboxPublisher(
        Connection(url, "driver_events outbox"),
        settings.kafka,
        {
            "tracking-updates": settings.kafka_updates_topic,
            "dead-letter": settings.kafka_dead_letter_topic,
        },
    )
    parked = ParkedRetry(Connection(url, "driver_events parked"), acks.request)
    feed = LiveFeed(
        settings.kafka,
        settings.kafka_positions_topic,
        tracing.headers_of if tracing else lambda _: None,
    )
    recorder = DatabaseRecorder(url, DeadLetterLimit(settings.dead_letters_per_minute))
    consumer = PartitionConsumer(
        settings.kafka,
        settings.kafka_topic,
        settings.kafka_group_id,
        name=settings.mqtt_username,
        check_clock=clock.check,
    )
    workers["outbox"] = Worker("outbox", outbox.publish, OUTBOX_EVERY_S)
    processor = Processor(
        consumer,
        tracing.recorder(recorder) if tracing else recorder,
        CommitFanout(feed.publish, acks.request, parked.remember, workers["outbox"].wake),
        max_batch_fixes=settings.max_batch_fixes,
        max_batch_age_s=settings.max_batch_age_s,
    )
    watchdog = Watchdog(consumer, lambda: processor.topic)
    commands = CommandPublisher(Connection(url, "driver_events commands"), sender)
    workers["commands"] = Worker("commands", commands.publish, COMMANDS_EVERY_S)
    if settings.sampling_follows_demand:
        demand = DemandFollower(Connection(url, "driver_events demand"), workers["commands"].wake)
        workers["demand"] = Worker("demand", demand.follow, DEMAND_EVERY_S)
    offers = OfferWorker(Connection(url, "driver_events offers"))
    workers["offers"] = Worker("offers", _timed(clock, offers.advance), OFFERS_EVERY_S)
    stops = StopWorker(Connection(url, "driver_events stops"))
    workers["stops"] = Worker("stops", _timed(clock, stops.advance), STOPS_EVERY_S)
    notices = NoticeWorker(Connection(url, "driver_events notices"), workers["outbox"].wake)
    workers["notices"] = Worker("notices", _timed(clock, notices.decide), NOTICES_EVERY_S)
    workers["parked"] = Worker("parked", parked.retry, PARKED_EVERY_S)
    workers["partitions"] = Worker(
        "partitions", _timed(clock, _partitions_ahead(url)), PARTITIONS_EVERY_S
    )
    compaction = CompactionWorker(settings, lambda worked_s: not stopping.wait(worked_s))
    workers["compaction"] = Worker("compaction", _timed(clock, compaction.run), HISTORY_EVERY_S)
    workers["watchdog"] = Worker("watchdog", watchdog.check, WATCH_EVERY_S)
    retention = timedelta(days=settings.series_retention_days)
    series = SeriesWriter(
        PartitionConsumer(
            settings.kafka,
            settings.kafka_series_topic,
            settings.series_group_id,
            name=settings.mqtt_username,
            fetch_wait_ms=round(POLL_TIMEOUT_S * 1000),
            check_clock=clock.check,
        ),
        Connection(url, "driver_events series"),
        retention,
        workers["outbox"].wake,
        DeadLetterLimit(settings.dead_letters_per_minute),
    )
    workers["series"] = Worker("series", series.write_batch, 0.0)
    expire = expire_old_points(Connection(url, "driver_events series expiry"), retention)
    workers["series_expiry"] = Worker("series_expiry", _timed(clock, expire), EXPIRE_EVERY_S)
    personal_data = RetentionWorker(
        Connection(url, "driver_events retention"), lambda worked_s: not stopping.wait(worked_s)
    )
    workers["retention"] = Worker("retention", _timed(clock, personal_data.run), RETENTION_EVERY_S)

    phones = PhoneWriter(
        PartitionConsumer(
            settings.kafka,
            settings.kafka_phone_topic,
            settings.phone_group_id,
            name=settings.mqtt_username,
            fetch_wait_ms=PHONE_FETCH_WAIT_MS,
            check_clock=clock.check,
        ),
        Connection(url, "driver_events phones"),
        CommitFanout(feed.publish, acks.request, lambda _: None, workers["outbox"].wake),
        DeadLetterLimit(settings.dead_letters_per_minute),
    )
    workers["phones"] = Worker("phones", phones.write_batch, 0.0)
    modes = PhoneModePublisher(Connection(url, "driver_events phone modes"), sender)
    workers["phone_modes"] = Worker("phone_modes", modes.publish, PHONE_MODES_EVERY_S)

    def ready() -> Mapping[str, bool]:
        return {
            "kafka": workers["watchdog"].is_healthy and consumer.has_joined,
            "database": workers["parked"].is_healthy and not consumer.needs_offsets,
            "mqtt": sender.is_connected,
            "clock": clock.is_trusted(),
        }

    check_workers = _start(workers)

    def check() -> None:
        check_workers()
        alarm = watchdog.pop_alarm()
        if alarm:
            processor.rejoin(alarm)

    telemetry = serve_telemetry(
        settings.driver_events_bind, ready, lambda: _is_recent(processor.last_run_s)
    )
    try:
        processor.run(stopping, check)
    finally:
        telemetry.close()
        feed.close()
        for name, writer in (("series", series), ("phones", phones)):
            workers[name].stop()
            writer.close()


def _make_tracing(settings: DriverEventsSettings) -> Tracing | None:
    spans = settings.open_spans("driver_events")
    if spans is None:
        return None
    from driver_events.tracing import Tracing

    return Tracing(spans, settings.traces_share)


def _start(workers: Mapping[str, Worker]) -> Callable[[], None]:
    """Start the threads; the returned function raises the exception of a failed one."""
    for worker in workers.values():
        worker.start()

    def check() -> None:
        for worker in workers.values():
            worker.check()

    return check


def _timed(clock: ClockGuard, work: Callable[[], bool]) -> Callable[[], bool]:
    """Return work that depends on the time of day, and waits while the clock is not trusted."""

    def check_and_work() -> bool:
        clock.check()
        return work()

    return check_and_work


def _partitions_ahead(url: str) -> Callable[[], bool]:
    """Return a function that creates the history's partitions ahead of time."""
    connection = Connection(url, "driver_events partitions")

    def ensure() -> bool:
        today = datetime.now(UTC).date()
        with connection.transaction() as conn:
            admin.ensure_partitions(conn, today - timedelta(days=1), today + timedelta(DAYS_AHEAD))
        connection.discard()  # not needed for the next hour
        return False

    return ensure


def _is_recent(last_run_s: float) -> bool:
    return time.monotonic() - last_run_s < MAX_POLL_INTERVAL_S
