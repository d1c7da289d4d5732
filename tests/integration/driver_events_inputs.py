"""What tests of driver_events as a process share: drivers, topics and fixes."""

from __future__ import annotations

import time

from confluent_kafka.admin import AdminClient, NewTopic

from doorstep.fix import Fix
from doorstep.store import admin
from ops.servers.kafka import KafkaServer
from tests.database import Database
from tests.factories import AWAY, now

DRIVERS = [f"d{n}" for n in range(1, 21)]


def create_topic(kafka: KafkaServer, name: str) -> None:
    admin_client = AdminClient({**kafka.access.as_librdkafka_dict()})
    for answer in admin_client.create_topics([NewTopic(name, 4, 1)]).values():
        answer.result(30)


def register(database: Database) -> None:
    with database.connect(autocommit=True) as conn:
        admin.register_drivers(conn, [admin.NewDriver(one, one, None) for one in DRIVERS])


def fix(seq: int, boot: str = "b1", age_s: float = 0.0, **changes: float) -> Fix:
    at = time.time() - age_s
    values = {"lat_deg": AWAY.lat_deg, "lon_deg": AWAY.lon_deg, **changes}
    return Fix(boot, seq, now().fromtimestamp(int(at * 1000) / 1000, now().tzinfo), **values)
