"""`python -m bridge`: run the bridge until SIGTERM or Ctrl-C."""

from __future__ import annotations

import signal
import threading

from bridge.kafka_publisher import Publisher
from bridge.relay import Relay
from bridge.settings import BridgeSettings
from bridge.subscriber import Subscriber
from doorstep.clock_guard import watched_clock
from doorstep.telemetry import configure_logging, get_logger, serve_telemetry


def main() -> None:
    """Build the clients and run the relay until a signal stops it."""
    settings = BridgeSettings.load_or_exit()
    configure_logging("bridge")
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())

    watched_clock()
    publisher = _make_publisher(settings)
    subscribers = [
        Subscriber(
            broker,
            client_id=settings.bridge_client_id,
            username=settings.mqtt_username,
            password=settings.mqtt_password.get_secret_value(),
            receive_maximum=max(1, settings.bridge_max_in_flight // len(settings.mqtt_url)),
        )
        for broker in settings.mqtt_url
    ]
    relay = Relay(settings, subscribers, publisher)
    telemetry = serve_telemetry(settings.bridge_bind, relay.ready, relay.is_alive)
    get_logger().info("started", brokers=[str(one.broker) for one in subscribers])
    try:
        relay.run(stopping)
    finally:
        telemetry.close()


def _make_publisher(settings: BridgeSettings) -> Publisher:
    spans = settings.open_spans("bridge")
    if spans is None:
        return Publisher(settings.kafka, settings.bridge_max_in_flight)
    from bridge.traced_publisher import TracedPublisher

    return TracedPublisher(settings, spans)


if __name__ == "__main__":
    main()
