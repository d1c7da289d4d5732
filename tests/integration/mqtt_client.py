"""A paho client that waits for the broker's answers."""

from __future__ import annotations

import threading

import paho.mqtt.client as mqtt

TIMEOUT_S = 30


class MqttClient:
    """Subscribes and publishes with QoS 1. A subclass makes `mqtt` and connects it."""

    mqtt: mqtt.Client

    def subscribe(self, topic: str) -> None:
        """Subscribe and wait for the SUBACK."""
        done = threading.Event()
        self.mqtt.on_subscribe = lambda *_: done.set()
        self.mqtt.subscribe(topic, qos=1)
        assert done.wait(TIMEOUT_S)

    def publish(self, topic: str, payload: bytes) -> None:
        """Publish and wait for the PUBACK."""
        self.mqtt.publish(topic, payload, qos=1).wait_for_publish(TIMEOUT_S)

    def close(self) -> None:
        """Disconnect and end the thread."""
        self.mqtt.disconnect()
        self.mqtt.loop_stop()
