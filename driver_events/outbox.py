"""Publishes the database's outbox to Kafka: order changes and dead letters, at least once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer

from doorstep.errors import KafkaUnavailable
from doorstep.kafka.access import KafkaAccess
from doorstep.store import fix_writer
from doorstep.store.records import OutboxRecord
from driver_events import metrics
from driver_events.batch import BootKey
from driver_events.consumer import RECONNECT_MS
from driver_events.recorder import Connection

MAX_RECORDS = 500  # of up to 64 KiB: 32 MB at most
DELIVERY_TIMEOUT_S = 3.0  # below idle_in_transaction_session_timeout (5 s): the lock is held
MAX_REMEMBERED = 100_000  # boots: a device may send new ones without end


class OutboxPublisher:
    """Drains the outbox. A lock in the database admits one process at a time."""

    def __init__(
        self, connection: Connection, kafka: KafkaAccess, topics: Mapping[str, str]
    ) -> None:
        self._connection = connection
        self._topics = topics
        self._errors: list[KafkaError] = []
        self._config: dict[str, Any] = {
            **kafka.as_librdkafka_dict(),
            "client.id": "driver-events-outbox",
            "enable.idempotence": True,  # keeps an order's changes in order, retries included
            "partitioner": "murmur2_random",
            "linger.ms": 2,
            "reconnect.backoff.max.ms": RECONNECT_MS,
            "compression.type": "lz4",
            "message.timeout.ms": int(DELIVERY_TIMEOUT_S * 1000),
            "log_level": 2,
        }
        self._producer = Producer(self._config)

    def publish(self) -> bool:
        """Publish pending records; True if there may be more. Raises Unavailable.

        1. Read the oldest records under the lock.
        2. Publish them and wait until Kafka has confirmed all.
        3. Delete them and commit.
        """
        with self._connection.transaction() as conn:
            # Step 1
            records = fix_writer.take_outbox(conn, MAX_RECORDS)
            if records:
                # Step 2
                self._send(records)
                # Step 3; the block ends with the commit
                fix_writer.delete_outbox(conn, [record.outbox_id for record in records])
        for record in records:
            metrics.OUTBOX.labels(record.topic).inc()
        return len(records) == MAX_RECORDS

    def _send(self, records: Sequence[OutboxRecord]) -> None:
        self._errors.clear()
        try:
            for record in records:
                self._producer.produce(
                    self._topics.get(record.topic, record.topic),
                    record.payload,
                    record.key,
                    headers=[(name, value) for name, value in record.headers],
                    on_delivery=self._on_delivery,
                )
        except (BufferError, KafkaException) as exc:
            self._reset_producer()
            raise KafkaUnavailable(f"outbox producer: {exc}") from exc
        left = self._producer.flush(DELIVERY_TIMEOUT_S)
        if left or self._errors:
            error = self._errors[0].str() if self._errors else f"{left} not confirmed"
            self._reset_producer()
            raise KafkaUnavailable(f"outbox records not confirmed: {error}")

    def _reset_producer(self) -> None:
        """Replace the producer; its unconfirmed records are read from the outbox again."""
        self._producer.purge()
        self._producer.flush(0.1)
        self._producer = Producer(self._config)

    def _on_delivery(self, error: KafkaError | None, _message: Any) -> None:
        if error is not None:
            self._errors.append(error)


class ParkedRetry:
    """Records fixes that were parked because a row was locked, or over the quota."""

    def __init__(
        self, connection: Connection, request_acks: Callable[[set[BootKey]], None]
    ) -> None:
        self._connection = connection
        self._request_acks = request_acks
        self._pairs: set[BootKey] = set()

    def remember(self, boot_keys: set[BootKey]) -> None:
        """Remember the boots whose watermark is due once their fixes are recorded."""
        if len(self._pairs) < MAX_REMEMBERED:
            self._pairs = self._pairs | boot_keys

    def retry(self) -> bool:
        """Try to record the parked fixes. Raises Unavailable."""
        with self._connection.transaction() as conn:
            remembered = self._pairs
            recorded = fix_writer.record_parked(conn)
            is_empty = not fix_writer.has_parked(conn)
        if recorded:
            metrics.UNPARKED.inc(recorded)
            self._request_acks(remembered)
        if is_empty:  # until then more acks follow: the last one ends the device's hold
            self._pairs = self._pairs - remembered
        return False
