"""Mosquitto and the bridge: killed, stopped, overflowing, and given what can't be handled."""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import paho.mqtt.client as mqtt
from confluent_kafka import Consumer, TopicPartition
from paho.mqtt.enums import CallbackAPIVersion

from doorstep.credentials import mqtt_password
from tests.faults.fault import Fault, Seen
from tests.faults.lab import Lab

DOWN_S = 600.0
QUEUE = 300  # messages that the broker keeps for the bridge: 0.6 s of the load
IN_FLIGHT = 100  # and that the bridge takes without Kafka's word
ALARM_WITHIN_S = 30.0
POISON = b"the payload that nobody can handle"
POISONER = "poisoner"
# What the bridge is given instead of a poison that exists: no payload is known to make it raise.
SITECUSTOMIZE = f"""
import bridge.relay as relay

send = relay.Relay._send


def failing(self, subscriber, arrival, chunk):
    if arrival.payload == {POISON!r}:
        raise ZeroDivisionError("made by the faults' lab")
    return send(self, subscriber, arrival, chunk)


relay.Relay._send = failing
"""


def kill_mosquitto(lab: Lab) -> Seen:
    """What its last save did not hold is gone; the devices send it again."""
    at = lab.kill("mosquitto-1")
    return Seen("", lab.wait_healthy(since=at), ok=True)


def stop_mosquitto(lab: Lab) -> Seen:
    """A stop in order: it saves its queues."""
    at = lab.kill("mosquitto-1", signal.SIGTERM)
    return Seen("", lab.wait_healthy(since=at), ok=True)


def kill_bridge(lab: Lab) -> Seen:
    """What Kafka has and MQTT was not told of comes a second time."""
    at = lab.kill("bridge")
    return Seen("", lab.wait_healthy(since=at), ok=True)


def bridge_down(lab: Lab) -> Seen:
    """Ten minutes of fixes wait in Mosquitto, and come a second time from the journals."""
    before = sum(lab.load.published().values())
    with lab.down("bridge"):
        time.sleep(DOWN_S)
        waited = sum(lab.load.published().values()) - before
    recovery_s = lab.wait_healthy(timeout_s=600)
    return Seen(f"{waited:,} fixes waited, {waited / recovery_s:,.0f} fixes/s", recovery_s, ok=True)


def overflow(lab: Lab) -> Seen:
    """Kafka stands still, and the broker may queue little: it drops after its PUBACK."""
    with (
        lab.told("bridge", {"BRIDGE_MAX_IN_FLIGHT": str(IN_FLIGHT)}),
        small_queue(lab),
    ):
        with lab.stopped("kafka"):
            began = time.monotonic()
            dropped = wait_for(
                lambda: lab.metric("bridge", "doorstep_bridge_broker_dropped"), ALARM_WITHIN_S
            )
            alarm_s = time.monotonic() - began
            is_said = "broker_drops_messages" in lab.log_of("bridge")
        back = time.monotonic()
        recovery_s = lab.wait_healthy(since=back)
    seen = f"{dropped:,.0f} drops told after {alarm_s:.1f} s" if dropped else "no drop was told"
    seen += ", logged" if is_said else ", not logged"
    return Seen(seen, recovery_s, ok=bool(dropped) and is_said)


def poison(lab: Lab) -> Seen:
    """A handler that raises: one dead letter, and everything else goes on."""
    lab.stack.add_drivers([POISONER])
    with tempfile.TemporaryDirectory(prefix="doorstep-poison-") as folder:
        Path(folder).chmod(0o755)
        (Path(folder) / "sitecustomize.py").write_text(SITECUSTOMIZE, encoding="utf-8")
        with lab.told("bridge", {"PYTHONPATH": folder}):
            pid, at = lab.pid("bridge"), time.monotonic()
            letters = dead_letters(lab)
            publish(lab, POISONER, POISON)
            found = wait_for(lambda: POISON in next(letters), 20)
            recovery_s = lab.wait_healthy(since=at)
            counted = lab.metric("bridge", "doorstep_bridge_poison_total")
            is_same = lab.pid("bridge") == pid
            letters.close()
    seen = f"{counted:.0f} counted, {'a' if found else 'no'} dead letter, "
    seen += "the same process" if is_same else "the process ended"
    return Seen(seen, recovery_s, ok=bool(found) and is_same and counted == 1)


@contextlib.contextmanager
def small_queue(lab: Lab) -> Iterator[None]:
    """Let the broker queue QUEUE messages a client: it starts anew, since a SIGHUP won't do."""
    path = lab.stack.paths.mosquitto.resolve() / "mosquitto-1.conf"
    usual = path.read_text(encoding="utf-8")
    small = usual.replace("max_queued_messages 1000000", f"max_queued_messages {QUEUE}")
    if small == usual:
        raise ValueError("mosquitto.conf no longer says what is to be changed")
    try:
        with lab.down("mosquitto-1"):
            path.write_text(small, encoding="utf-8")  # in place: it keeps its owner
        lab.wait_healthy()
        yield
    finally:
        with lab.down("mosquitto-1"):
            path.write_text(usual, encoding="utf-8")


def publish(lab: Lab, driver_id: str, payload: bytes) -> None:
    """Publish as a driver's phone, QoS 1, and wait for the PUBACK."""
    broker = lab.addresses.mqtt[0]
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=driver_id)
    client.username_pw_set(driver_id, mqtt_password(lab.stack.paths.fleet_key(), driver_id))
    client.connect("127.0.0.1", broker.port)
    client.loop_start()
    topic = f"doorstep/v1/drivers/{driver_id}/position"
    client.publish(topic, payload, qos=1).wait_for_publish(10)
    client.disconnect()
    client.loop_stop()


def dead_letters(lab: Lab) -> Generator[bytes, None, None]:
    """Read what comes to the dead letters from now on; empty bytes while nothing does."""
    config = {"bootstrap.servers": lab.kafka_servers, "group.id": f"faults-{os.getpid()}"}
    consumer = Consumer(config | {"enable.auto.commit": False})
    metadata = consumer.list_topics("dead-letter", timeout=10).topics["dead-letter"]
    partitions = [TopicPartition("dead-letter", one) for one in metadata.partitions]
    for one in partitions:
        one.offset = consumer.get_watermark_offsets(one, timeout=10)[1]
    consumer.assign(partitions)

    def read() -> Generator[bytes, None, None]:
        try:
            while True:
                message = consumer.poll(0.2)
                yield (message.value() or b"") if message and not message.error() else b""
        finally:
            consumer.close()

    return read()


def wait_for(ask: Callable[[], float | bool], within_s: float) -> float | bool:
    """Ask until the answer is not nothing, and return it; or nothing, after that time."""
    deadline = time.monotonic() + within_s
    while not (answer := ask()) and time.monotonic() < deadline:
        time.sleep(0.2)
    return answer


FAULTS = (
    Fault(1, "kill -9 mosquitto", "T <= 10 s, devices resend, 0 lost", 10, True, kill_mosquitto),
    Fault(2, "SIGTERM mosquitto", "0 lost", None, False, stop_mosquitto),
    Fault(3, "kill -9 bridge", "T <= 5 s", 5, True, kill_bridge),
    Fault(4, "bridge down 10 min", "drained <= 5 min", 300, False, bridge_down),
    Fault(
        5,
        "queue overflow",
        "drops counted, alarm <= 30 s, resend restores all",
        None,
        False,
        overflow,
    ),
    Fault(
        6, "an exception in the bridge's callback", "dead letter, still alive", None, False, poison
    ),
)
