"""What the bridge counts."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

MESSAGES = Counter("doorstep_bridge_messages", "Messages received from MQTT", ["topic"])
ACKED = Counter("doorstep_bridge_acked", "Messages that Kafka confirmed and MQTT was told of")
IN_FLIGHT = Gauge("doorstep_bridge_in_flight", "Messages received and not yet acknowledged")
CONNECTED = Gauge("doorstep_bridge_connected", "1 while subscribed on the broker", ["broker"])
CONNECTIONS = Counter("doorstep_bridge_connections", "Sessions opened or resumed", ["broker"])
DELIVERY_ERRORS = Counter(
    "doorstep_bridge_delivery_errors", "Records that Kafka refused; MQTT delivers them again"
)
QUEUE_FULL = Counter("doorstep_bridge_queue_full", "Times that the Kafka producer's queue was full")
POISON = Counter("doorstep_bridge_poison", "Messages that could not be handled: dead letters")
DROPPED = Counter(
    "doorstep_bridge_qos0_dropped", "QoS 0 messages let go while too much was in flight"
)
BROKER_DROPPED = Gauge(
    "doorstep_bridge_broker_dropped",
    "Messages that the broker says it has dropped ($SYS) since it started",
    ["broker"],
)
