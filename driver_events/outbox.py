"""From the database's outbox to Kafka: order changes and dead letters, at least once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer

from doorstep.store import fix_writer
from doorstep.store.records import OutboxRecord
from driver_events import metrics
from driver_events.batch import Pair
from driver_events.consumer import RECONNECT_MS, KafkaUnavailable
from driver_events.recorder import Connection

RECORDS = 500  # of up to 64 KiB: 32 MB at most
DELIVERY_TIMEOUT_S = 3.0  # below idle_in_transaction_session_timeout (5 s): the lock is held


class OutboxPublisher:
    """Drains the outbox. Another process may run one too: one of them gets the lock."""

    def __init__(
        self, connection: Connection, bootstrap_servers: str, topics: Mapping[str, str]
    ) -> None:
        self._connection = connection
        self._topics = topics
        self._errors: list[KafkaError] = []
        self._config: dict[str, Any] = {
            "bootstrap.servers": bootstrap_servers,
            "client.id": "driver-events-outbox",
            "enable.idempotence": True,  # keeps an order's changes in order, resends included
            "partitioner": "murmur2_random",
            "linger.ms": 2,
            "reconnect.backoff.max.ms": RECONNECT_MS,
            "compression.type": "lz4",
            "message.timeout.ms": int(DELIVERY_TIMEOUT_S * 1000),
            "log_level": 2,
        }
        self._producer = Producer(self._config)

    def publish(self) -> bool:
        """Publish what waits; True if there may be more. Raises Unavailable.

        1. Take the oldest records, under the lock.
        2. Publish them, and wait until Kafka has them all.
        3. Delete them, and commit.
        """
        with self._connection.transaction() as conn:
            # Step 1
            records = fix_writer.take_outbox(conn, RECORDS)
            if records:
                # Step 2
                self._send(records)
                # Step 3: and the commit at the end of the block
                fix_writer.delete_outbox(conn, [record.outbox_id for record in records])
        for record in records:
            metrics.OUTBOX.labels(record.topic).inc()
        return len(records) == RECORDS

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
            self._start_over()
            raise KafkaUnavailable(f"the outbox's producer: {exc}") from exc
        left = self._producer.flush(DELIVERY_TIMEOUT_S)
        if left or self._errors:
            error = self._errors[0].str() if self._errors else f"{left} not confirmed"
            self._start_over()
            raise KafkaUnavailable(f"the outbox waits for Kafka: {error}")

    def _start_over(self) -> None:
        """Drop what the producer still holds: it would be published again anyway."""
        self._producer.purge()
        self._producer.flush(0.1)
        self._producer = Producer(self._config)

    def _on_delivery(self, error: KafkaError | None, _message: Any) -> None:
        if error is not None:
            self._errors.append(error)


class ParkedRetry:
    """Tries fixes again that were parked because their driver's row was locked."""

    def __init__(self, connection: Connection, note: Callable[[set[Pair]], None]) -> None:
        self._connection = connection
        self._note = note
        self._pairs: set[Pair] = set()

    def note_parked(self, pairs: set[Pair]) -> None:
        """Remember whose watermark is to be sent once their fixes are recorded."""
        self._pairs = self._pairs | pairs

    def retry(self) -> bool:
        """Try the parked fixes again. Raises Unavailable."""
        with self._connection.transaction() as conn:
            recorded = fix_writer.record_parked(conn)
        if recorded:
            metrics.PARKED.inc(recorded)
            pairs, self._pairs = self._pairs, set()
            self._note(pairs)
        return False
