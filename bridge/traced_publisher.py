"""Writes a span, and the header `traceparent`, for each sampled fix. Imported only if on."""

from __future__ import annotations

import time
from typing import Any

from confluent_kafka import KafkaError

from bridge.kafka_publisher import OnDelivery, Publisher
from bridge.settings import BridgeSettings
from doorstep.traces.exporter import SpanWriter
from doorstep.traces.identity import Sampler

SPAN = "bridge"


class TracedPublisher(Publisher):
    """Reads boot and seq of each position message, which the bridge otherwise never parses."""

    def __init__(self, settings: BridgeSettings, spans: SpanWriter) -> None:
        super().__init__(settings.kafka, settings.bridge_max_in_flight)
        self._spans = spans
        self._sampler = Sampler(settings.traces_share)
        self._position_topic = settings.kafka_topic

    def produce(
        self,
        topic: str,
        key: bytes,
        value: bytes,
        on_delivery: OnDelivery,
        headers: list[tuple[str, str | bytes | None]] | None = None,
    ) -> bool:
        """Enqueue one record; a sampled one with the header of its first sampled fix."""
        traced = []
        if topic == self._position_topic:
            traced = self._sampler.traced_in(key.decode("utf-8", "replace"), value)
        if not traced:
            return super().produce(topic, key, value, on_delivery, headers)
        received_ns = time.time_ns()

        def deliver(error: KafkaError | None, message: Any) -> None:
            on_delivery(error, message)
            if error is not None:
                return
            attributes = {
                "messaging.destination.name": topic,
                "messaging.destination.partition.id": str(message.partition()),
                "messaging.kafka.offset": message.offset(),
            }
            now_ns = time.time_ns()
            for fix in traced:
                self._spans.write(fix.trace_id, SPAN, received_ns, now_ns, attributes=attributes)

        parents = [("traceparent", traced[0].traceparent(SPAN)), *(headers or ())]
        return super().produce(topic, key, value, deliver, parents)

    def close(self) -> None:
        """Stop the probe thread and send the queued spans."""
        super().close()
        self._spans.close()
