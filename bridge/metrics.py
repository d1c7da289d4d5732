"""The bridge's Prometheus metrics."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

MESSAGES = Counter("doorstep_bridge_messages", "Messages received from MQTT", ["topic"])
ACKED = Counter("doorstep_bridge_acked", "Messages confirmed by Kafka and acknowledged to MQTT")
IN_FLIGHT = Gauge("doorstep_bridge_in_flight", "Messages received and not yet acknowledged")
CONNECTED = Gauge("doorstep_bridge_connected", "1 while subscribed on the broker", ["broker"])
CONNECTIONS = Counter("doorstep_bridge_connections", "Sessions opened or resumed", ["broker"])
DELIVERY_ERRORS = Counter(
    "doorstep_bridge_delivery_errors", "Records that Kafka refused; MQTT delivers them again"
)
QUEUE_FULL = Counter("doorstep_bridge_queue_full", "Times that the Kafka producer's queue was full")
POISON = Counter(
    "doorstep_bridge_poison", "Messages that raised an exception and became dead letters"
)
QOS0_DROPPED = Counter(
    "doorstep_bridge_qos0_dropped", "QoS 0 messages dropped over the in-flight limit"
)
BROKER_DROPPED = Gauge(
    "doorstep_bridge_broker_dropped",
    "Messages that the broker has dropped since it started, as reported in $SYS",
    ["broker"],
)
BROKER_CLIENTS = Gauge(
    "doorstep_bridge_broker_clients", "Clients connected to the broker, as in $SYS", ["broker"]
)
BROKER_RECEIVED = Gauge(
    "doorstep_bridge_broker_received",
    "PUBLISH packets that the broker has received since it started, as in $SYS",
    ["broker"],
)
BROKER_STORED = Gauge(
    "doorstep_bridge_broker_stored",
    "Messages that the broker stores, retained ones included, as in $SYS",
    ["broker"],
)
RETAINED_CLEARED = Counter(
    "doorstep_bridge_retained_cleared", "Retained points of series that the broker was let forget"
)
