"""The simple alternative to the database sink: one PATCH per fix (FIX_SINK=driver_api).

Kept for its simplicity and as the benchmark's other side. It has no batches and no transaction:

- Offsets are Kafka's own, committed once every fix of a poll has an answer. After a crash some
  fixes are sent again, and driver_api answers `duplicate`.
- `received_at` is the Kafka record's timestamp, sent in RECEIVED_AT_HEADER. driver_api accepts it
  only with the sink's own token (DRIVER_API_TOKEN).
- What driver_api cannot take (an entry that is not a fix, a void) becomes a dead letter, and the
  watermark does not pass it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable

import httpx
from confluent_kafka import Consumer, KafkaException, Producer

from doorstep.errors import MalformedFix
from doorstep.fix import (
    RECEIVED_AT_HEADER,
    Fix,
    Refused,
    decode_position,
    encode_fix,
    instant_of,
)
from doorstep.mqtt_topics import POSITION, topic_of
from doorstep.telemetry import count_ignored, get_logger
from driver_events import metrics
from driver_events.batch import BootKey, Record, driver_id_of
from driver_events.consumer import records_of
from driver_events.settings import DriverEventsSettings

MAX_RECORDS = 100  # per poll: what a crash repeats
MAX_BACKOFF_S = 5.0
REQUEST_TIMEOUT_S = 10.0  # driver_api answers within 5 s, also without its database


class PatchSink:
    """Reads driver-pos and calls PATCH /drivers/{driver_id}/location per fix."""

    def __init__(
        self,
        settings: DriverEventsSettings,
        request_acks: Callable[[set[BootKey]], None],
        client: httpx.Client | None = None,
    ) -> None:
        logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs each request
        self._topic = settings.kafka_topic
        self._dead_letter_topic = settings.kafka_dead_letter_topic
        self._request_acks = request_acks
        self._log = get_logger(sink="driver_api")
        self._stopping = threading.Event()
        token = settings.driver_api_token.get_secret_value()
        self._client = client or httpx.Client(
            base_url=settings.driver_api_url,
            headers={"Authorization": f"Bearer {token}"},
            timeout=REQUEST_TIMEOUT_S,
        )
        self._consumer = Consumer(
            {
                **settings.kafka.as_librdkafka_dict(),
                "group.id": f"{settings.kafka_group_id}-patch",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "session.timeout.ms": 6000,
                "heartbeat.interval.ms": 2000,
                "log_level": 2,
            }
        )
        self._producer = Producer(
            {
                **settings.kafka.as_librdkafka_dict(),
                "enable.idempotence": True,
                "partitioner": "murmur2_random",
                "message.timeout.ms": 0,
                "log_level": 2,
            }
        )
        self.last_run_s = time.monotonic()
        self.is_healthy = False

    def run(self, stopping: threading.Event, check: Callable[[], None]) -> None:
        """Relay until `stopping`. `check` raises the exception of a failed thread."""
        self._stopping = stopping
        self._consumer.subscribe([self._topic])
        while not stopping.is_set():
            check()
            self.last_run_s = time.monotonic()
            messages = [one for one in self._consumer.consume(MAX_RECORDS, 0.2) if not one.error()]
            if not messages and not self.is_healthy:
                self._probe()
            boot_keys: set[BootKey] = set()
            outcomes: Counter[str] = Counter()
            for message in messages:
                self._relay(records_of([message])[0], boot_keys, outcomes)
            if messages and not stopping.is_set():
                self._commit()
                self._request_acks(boot_keys)
                for outcome, times in outcomes.items():
                    metrics.FIXES.labels(outcome).inc(times)
        self._consumer.close()
        self._client.close()

    def _probe(self) -> None:
        try:
            self.is_healthy = self._client.get("/healthz").status_code == httpx.codes.OK
        except httpx.TransportError:
            self.is_healthy = False

    def _commit(self) -> None:
        self._producer.flush()  # dead letters first
        try:
            self._consumer.commit(asynchronous=False)
        except KafkaException as exc:
            self._log.warning("offsets_not_committed", error=str(exc))  # read again

    def _relay(self, record: Record, boot_keys: set[BootKey], outcomes: Counter[str]) -> None:
        driver_id = driver_id_of(record.key)
        if driver_id is None:
            self._to_dead_letters(record, "bad_id", "the key is not a driver id")
            return
        try:
            decoded = decode_position(record.payload)
        except MalformedFix as exc:
            outcomes["malformed"] += 1
            self._to_dead_letters(record, exc.reason, exc.detail)
            return
        for fix in decoded:
            if isinstance(fix, Refused):
                outcomes["rejected"] += 1
                if not fix.is_void:
                    self._to_dead_letters(record, fix.reason, fix.detail)
            else:
                count_ignored(Counter(fix.ignored))
                boot_keys.add((driver_id, fix.boot or ""))
                outcomes[self._patch(record, driver_id, fix)] += 1

    def _patch(self, record: Record, driver_id: str, fix: Fix) -> str:
        """Call PATCH until it answers, and return the outcome."""
        wait_s = 0.25
        while not self._stopping.is_set():
            try:
                answer = self._client.patch(
                    f"/drivers/{driver_id}/location",
                    content=encode_fix(fix),
                    headers={
                        "Content-Type": "application/json",
                        RECEIVED_AT_HEADER: instant_of(record.received_at_ms).isoformat(),
                    },
                )
            except httpx.TransportError as exc:
                reason = str(exc) or type(exc).__name__
            else:
                if answer.status_code == httpx.codes.OK:
                    self.is_healthy = True
                    return str(answer.json()["outcome"])
                if answer.status_code in (404, 409, 413, 422):
                    problem = answer.json()
                    known = {404: "unknown_driver", 409: "conflict", 413: "too_large"}
                    self._to_dead_letters(
                        record,
                        str(problem.get("reason") or known.get(answer.status_code, "rejected")),
                        str(problem.get("detail", "")),
                    )
                    return "conflict" if answer.status_code == 409 else "rejected"
                reason = f"status {answer.status_code}"  # 401, 403: a wrong token
            if self.is_healthy:
                self._log.warning("waiting_for_driver_api", error=reason)
            self.is_healthy = False
            self.last_run_s = time.monotonic()
            self._stopping.wait(wait_s)
            wait_s = min(MAX_BACKOFF_S, 2 * wait_s)
        return "unanswered"

    def _to_dead_letters(self, record: Record, reason: str, detail: str) -> None:
        metrics.DEAD_LETTERS.labels(reason).inc()
        driver_id = driver_id_of(record.key) or ""
        self._producer.produce(
            self._dead_letter_topic,
            record.payload,
            driver_id,
            headers=[
                ("reason", reason),
                ("source", "mqtt"),
                ("topic", topic_of(driver_id, POSITION)),
                ("driver_id", driver_id),
                ("detail", detail),
                ("received_at_ms", str(record.received_at_ms)),
            ],
        )
        self._producer.poll(0)
