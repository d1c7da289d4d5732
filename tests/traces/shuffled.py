"""Send the Kafka records of phone-days, shuffled, through a driver_events to an empty database.

Each fix is sent separately with its original arrival, in random order, every tenth twice.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

from confluent_kafka import Message, Producer

from bench.recordings.places import place_of
from doorstep.fix import Fix, decode_position, encode_fix
from doorstep.kafka.topic_specs import DAY_MS, Topic, create_topics
from doorstep.store import admin
from ops.servers.services import ServiceProcess
from ops.servers.waiting import wait_until
from tests.clients.kafka import read_topic
from tests.database import Database
from tests.factories import Place
from tests.sql.fleet import Fleet
from tests.traces.final_state import FinalState, read_final_state
from tests.traces.phone_days import FIRST_RESTAURANT, PhoneDays, restaurants_of
from tests.traces.stops import stops_of

RECORDED_WITHIN_S = 180.0
OFFSETS = "SELECT coalesce(sum(next_offset), 0) AS n FROM doorstep.kafka_offset"


def records_of(phones: PhoneDays) -> list[tuple[str, Fix, int]]:
    """Return the first copy of every fix in Kafka: (driver, fix, arrival in ms)."""
    keys = {driver_id.encode(): driver_id for driver_id in phones.drivers()}
    wanted = {
        (phones.driver_of(day), seq) for day in phones.days for seq in range(1, len(day.fixes) + 1)
    }
    first: dict[tuple[str, int], tuple[str, Fix, int]] = {}
    seen = 0

    def is_complete(messages: Sequence[Message]) -> bool:
        nonlocal seen
        new, seen = messages[seen:], len(messages)
        for message in new:
            driver_id = keys.get(message.key() or b"")
            for fix in decode_position(message.value() or b"") if driver_id else ():
                if isinstance(fix, Fix) and driver_id and fix.seq is not None:
                    arrived_ms = message.timestamp()[1]
                    first.setdefault((driver_id, fix.seq), (driver_id, fix, arrived_ms))
        return wanted <= first.keys()

    read_topic(phones.access, "driver-pos", is_complete)
    return list(first.values())


def send_shuffled(phones: PhoneDays, database: Database, folder: Path, seed: int) -> FinalState:
    """Send the records, shuffled and every tenth twice, and return the final state."""
    fleet = Fleet(database)
    admin.register_restaurants(fleet.conn, restaurants_of(phones.days))
    fleet.add_drivers(*phones.drivers())
    for number, day in enumerate(phones.days):
        order_id = fleet.assigned_order(
            phones.driver_of(day),
            restaurant_id=FIRST_RESTAURANT + number,
            customer=Place(*place_of(day, stops_of(day.name)[1])),
        )
        fleet.backdate_assignment(order_id, phones.assigned_at(day))
    records = records_of(phones)
    records += records[::10]
    random.Random(seed).shuffle(records)
    topic = f"{phones.tag}-shuffled-{seed}"
    # Its own phones and series, too: other tests' records of the stack's would be counted.
    names = ("phone", "series", "updates", "positions", "dead-letter")
    others = {name: f"{topic}-{name}" for name in names}
    create_topics(
        phones.access,
        topics=[
            Topic(topic, 12, DAY_MS),
            *(Topic(name, 1, DAY_MS) for name in others.values()),
        ],
    )
    producer = Producer(
        {
            **phones.access.as_librdkafka_dict(),
            "partitioner": "murmur2_random",
            "linger.ms": 20,
        }
    )
    for driver_id, fix, arrived_ms in records:
        producer.produce(topic, encode_fix(fix), driver_id, timestamp=arrived_ms)
        producer.poll(0)
    assert producer.flush(30) == 0
    driver_events = WithoutBroker(
        folder,
        "driver_events",
        "DRIVER_EVENTS_BIND",
        DATABASE_URL=database.url("driver_events"),
        MQTT_URL="mqtt://127.0.0.1:1",  # no broker: one client id cannot connect twice
        **phones.access.environment(),
        KAFKA_TOPIC=topic,
        KAFKA_GROUP_ID=topic,
        KAFKA_PHONE_TOPIC=others["phone"],
        KAFKA_SERIES_TOPIC=others["series"],
        KAFKA_UPDATES_TOPIC=others["updates"],
        KAFKA_POSITIONS_TOPIC=others["positions"],
        KAFKA_DEAD_LETTER_TOPIC=others["dead-letter"],
    )
    try:
        driver_events.start()
        wait_until(
            lambda: database.value(OFFSETS) == len(records), RECORDED_WITHIN_S, "shuffled fixes"
        )
    finally:
        driver_events.stop()
    final_state = read_final_state(fleet.conn, phones.drivers())
    fleet.close()
    return final_state


class WithoutBroker(ServiceProcess):
    """A driver_events that is ready without its MQTT broker."""

    def is_ready(self) -> bool:
        _, body = self.get("/readyz")
        if not body:
            return False
        parts = json.loads(body)
        return bool(parts.get("database") and parts.get("kafka"))
