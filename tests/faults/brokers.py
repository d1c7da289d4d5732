"""Mosquitto and the bridge: killed, stopped, a full queue, and a payload that raises."""

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
from tests.faults.environment import FaultEnvironment
from tests.faults.fault import Fault, Outcome

DOWN_S = 600.0
QUEUE = 300  # messages queued for the bridge: 0.6 s of the load
IN_FLIGHT = 100  # messages in the bridge without Kafka's confirmation
ALARM_WITHIN_S = 30.0
POISON = b"a payload that raises in the bridge"
POISONER = "poisoner"
# No payload is known to make the bridge raise, so producing this one raises in its process.
SITECUSTOMIZE = f"""
from bridge.kafka_publisher import Publisher

produce = Publisher.produce


def failing(self, topic, key, value, on_delivery, headers=None):
    if value == {POISON!r} and headers is None:  # the dead letter has headers
        raise ZeroDivisionError("injected")
    return produce(self, topic, key, value, on_delivery, headers)


Publisher.produce = failing
"""


def kill_mosquitto(env: FaultEnvironment) -> Outcome:
    """Kill Mosquitto: it loses what it has not saved, and the devices resend it."""
    at = env.kill("mosquitto-1")
    return Outcome("", env.wait_healthy(since=at), ok=True)


def stop_mosquitto(env: FaultEnvironment) -> Outcome:
    """Stop Mosquitto: it saves its queues."""
    at = env.kill("mosquitto-1", signal.SIGTERM)
    return Outcome("", env.wait_healthy(since=at), ok=True)


def kill_bridge(env: FaultEnvironment) -> Outcome:
    """Kill the bridge: messages without a PUBACK arrive in Kafka a second time."""
    at = env.kill("bridge")
    return Outcome("", env.wait_healthy(since=at), ok=True)


def bridge_down(env: FaultEnvironment) -> Outcome:
    """Stop the bridge for 10 minutes: fixes queue in Mosquitto, and devices resend them."""
    before = sum(env.load.published().values())
    with env.shut_down("bridge"):
        time.sleep(DOWN_S)
        waited = sum(env.load.published().values()) - before
    recovery_s = env.wait_healthy(timeout_s=600)
    return Outcome(
        f"{waited:,} fixes waited, {waited / recovery_s:,.0f} fixes/s", recovery_s, ok=True
    )


def overflow(env: FaultEnvironment) -> Outcome:
    """Freeze Kafka with a small queue in the broker: it drops messages after the PUBACK."""
    with (
        env.with_variables("bridge", {"BRIDGE_MAX_IN_FLIGHT": str(IN_FLIGHT)}),
        small_queue(env),
    ):
        with env.frozen("kafka"):
            began = time.monotonic()
            dropped = poll_for(
                lambda: env.metric("bridge", "doorstep_bridge_broker_dropped"), ALARM_WITHIN_S
            )
            alarm_s = time.monotonic() - began
            is_logged = "broker_drops_messages" in env.log("bridge")
        back = time.monotonic()
        recovery_s = env.wait_healthy(since=back)
    seen = (
        f"{dropped:,.0f} drops reported after {alarm_s:.1f} s"
        if dropped
        else "no drop was reported"
    )
    seen += ", logged" if is_logged else ", not logged"
    return Outcome(seen, recovery_s, ok=bool(dropped) and is_logged)


def poison(env: FaultEnvironment) -> Outcome:
    """Make the bridge's handler raise: one dead letter, and the bridge continues."""
    env.stack.add_drivers([POISONER])
    with tempfile.TemporaryDirectory(prefix="doorstep-poison-") as folder:
        Path(folder).chmod(0o755)
        (Path(folder) / "sitecustomize.py").write_text(SITECUSTOMIZE, encoding="utf-8")
        with env.with_variables("bridge", {"PYTHONPATH": python_path(folder)}):
            pid, at = env.pid("bridge"), time.monotonic()
            letters = dead_letters(env)
            publish(env, POISONER, POISON)
            found = poll_for(lambda: next(letters) == ("bridge_error", POISON), 20)
            recovery_s = env.wait_healthy(since=at)
            counted = env.metric("bridge", "doorstep_bridge_poison_total")
            is_same = env.pid("bridge") == pid
            letters.close()
    seen = f"{counted:.0f} counted, {'a' if found else 'no'} dead letter, "
    seen += "the same process" if is_same else "the process ended"
    return Outcome(seen, recovery_s, ok=bool(found) and is_same and counted == 1)


def python_path(folder: str) -> str:
    """Put a folder before this process's PYTHONPATH."""
    return os.pathsep.join([folder, *filter(None, [os.environ.get("PYTHONPATH")])])


@contextlib.contextmanager
def small_queue(env: FaultEnvironment) -> Iterator[None]:
    """Restart the broker with a queue of QUEUE messages per client during the block."""
    path = env.stack.paths.mosquitto.resolve() / "mosquitto-1.conf"
    original = path.read_text(encoding="utf-8")
    small = original.replace("max_queued_messages 1000000", f"max_queued_messages {QUEUE}")
    if small == original:
        raise ValueError("mosquitto.conf has no such max_queued_messages")
    try:
        with env.shut_down("mosquitto-1"):
            path.write_text(small, encoding="utf-8")  # in place: the file keeps its owner
        env.wait_healthy()
        yield
    finally:
        with env.shut_down("mosquitto-1"):
            path.write_text(original, encoding="utf-8")


def publish(env: FaultEnvironment, driver_id: str, payload: bytes) -> None:
    """Publish as a driver with QoS 1, and wait for the PUBACK."""
    broker = env.addresses.mqtt[0]
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=driver_id)
    client.username_pw_set(driver_id, mqtt_password(env.stack.paths.fleet_key(), driver_id))
    client.connect("127.0.0.1", broker.port)
    client.loop_start()
    topic = f"doorstep/v1/drivers/{driver_id}/position"
    client.publish(topic, payload, qos=1).wait_for_publish(10)
    client.disconnect()
    client.loop_stop()


def dead_letters(env: FaultEnvironment) -> Generator[tuple[str, bytes], None, None]:
    """Yield new dead letters, (reason, payload); both are empty while there is none."""
    config = {**env.kafka.as_librdkafka_dict(), "group.id": f"faults-{os.getpid()}"}
    consumer = Consumer(config | {"enable.auto.commit": False})
    metadata = consumer.list_topics("dead-letter", timeout=10).topics["dead-letter"]
    partitions = [TopicPartition("dead-letter", one) for one in metadata.partitions]
    for one in partitions:
        one.offset = consumer.get_watermark_offsets(one, timeout=10)[1]
    consumer.assign(partitions)

    def read() -> Generator[tuple[str, bytes], None, None]:
        try:
            while True:
                message = consumer.poll(0.2)
                if message is None or message.error():
                    yield "", b""
                else:
                    reason = dict(message.headers() or [])["reason"]
                    yield reason.decode(), message.value() or b""
        finally:
            consumer.close()

    return read()


def poll_for(read: Callable[[], float | bool], within_s: float) -> float | bool:
    """Poll until the value is truthy or the time is over; return the last value."""
    deadline = time.monotonic() + within_s
    while not (value := read()) and time.monotonic() < deadline:
        time.sleep(0.2)
    return value


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
