"""Phone-days through the whole stack, then their Kafka records, shuffled, into an empty database.

over_mqtt    device journal → Mosquitto → bridge → Kafka → driver_events → PostGIS
shuffled     the records of that, each fix by itself with the arrival it had, in any order and
             every tenth twice → another topic → another driver_events → an empty database
over_http    POST /drivers/{id}/locations without boot and seq, as another maker's app would
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from confluent_kafka import Message, Producer
from psycopg.rows import dict_row

from doorstep.fix import Fix, decode_position, encode_fix, wire_instant
from doorstep.provision import owner_connection
from doorstep.settings import MqttBroker
from doorstep.stack.addresses import reach
from doorstep.stack.stack import Stack
from doorstep.stack.topics import DAY_MS, Topic, create_topics
from doorstep.store import admin
from simulators.api import Answer, Api
from simulators.phone import phone_of
from simulators.settings import Fleet as Secrets
from simulators.settings import SimulatorSettings
from tests.database import Database
from tests.integration.pipe_services import Service, read_topic_at
from tests.integration.servers import wait_until
from tests.sql.fleet import Fleet
from tests.traces.data import Trace
from tests.traces.days import stops_of
from tests.traces.orders import place_of

CHUNK_FIXES = 32  # what a phone writes between two fsyncs
HTTP_FIXES = 256
SETTLE_WITHIN_S = 180.0
FIRST_RESTAURANT = 500_001
ASSIGNED_BEFORE = timedelta(seconds=60)

STANDING = {
    "history": """
        SELECT driver_id, boot, seq, fix_at, received_at, lon_deg, lat_deg, accuracy_m, speed_mps,
            heading_deg, altitude_m, quarantine
        FROM doorstep.fix_history WHERE driver_id = ANY (%s)
        ORDER BY driver_id, fix_at, boot, seq""",
    "boots": """
        SELECT driver_id, boot, stored::text, rejected::text FROM doorstep.driver_boot
        WHERE driver_id = ANY (%s) ORDER BY driver_id, boot""",
    "evidence": """
        SELECT a.driver_id, e.assignment_no, e.state::text, e.source::text, e.occurred_at
        FROM doorstep.evidence e JOIN doorstep.assignment a USING (order_id, assignment_no)
        WHERE a.driver_id = ANY (%s) ORDER BY a.driver_id, e.state""",
    "states": """
        SELECT a.driver_id, o.state::text, o.assignment_no, d.state::text, d.fix_at,
            d.received_at, d.boot, d.seq, d.lon_deg, d.lat_deg, d.accuracy_m
        FROM doorstep.orders o JOIN doorstep.assignment a USING (order_id, assignment_no)
        JOIN doorstep.driver_state d USING (driver_id)
        WHERE a.driver_id = ANY (%s) ORDER BY a.driver_id""",
}
BACKDATE = "UPDATE doorstep.assignment SET assigned_at = %s WHERE order_id = %s"
OFFSETS = "SELECT coalesce(sum(next_offset), 0) AS n FROM doorstep.kafka_offset"

Standing = dict[str, list[dict[str, Any]]]
Fates = dict[int, str]
Say = Callable[[str], None]


@dataclass(slots=True)
class PhoneDays:
    """Some phone-days on a running stack. `tag` begins the drivers' ids."""

    stack: Stack
    days: Sequence[Trace]
    ends_at: datetime
    journals: Path
    ack_every_s: float
    tag: str = "phone"
    say: Say = lambda _: None
    orders: dict[str, UUID] = field(default_factory=dict)  # by driver
    _secrets: Secrets | None = None

    # -- who and where ------------------------------------------------------------------------

    def driver_of(self, day: Trace, door: str = "mqtt") -> str:
        """The driver that carries a day's phone."""
        return f"{self.tag}-{door}-{day.name.rpartition('/')[2]}"

    def drivers(self, door: str = "mqtt") -> list[str]:
        return [self.driver_of(day, door) for day in self.days]

    @property
    def settings(self) -> SimulatorSettings:
        """The phones' settings."""
        at, home = self.stack.addresses, self.stack.home
        return SimulatorSettings(
            mqtt_url=tuple(
                MqttBroker(one.host, one.port, tls=False) for one in map(reach, at.mqtt)
            ),
            fleet_key_file=home.fleet_key_file,
            staff_token_file=home.staff_token_file,
            driver_api_url=f"http://{reach(at.driver_api)}",
            tracking_api_url=f"http://{reach(at.tracking_api)}",
            journal_dir=self.journals,
            ack_every_s=self.ack_every_s,
        )

    @property
    def bootstrap_servers(self) -> str:
        return str(reach(self.stack.addresses.kafka))

    def assigned_at(self, day: Trace) -> datetime:
        """Each order was given to its phone a minute before the day began."""
        return day.moved(day.begins_s, self.ends_at) - ASSIGNED_BEFORE

    # -- orders -------------------------------------------------------------------------------

    async def place_orders(self, doors: Sequence[str]) -> None:
        """Register restaurants and drivers; create, confirm and assign an order for each."""
        self.stack.add_drivers([one for door in doors for one in self.drivers(door)])
        with owner_connection(self.stack.database_admin_url) as conn:
            admin.register_restaurants(conn, restaurants_of(self.days))
            conn.commit()
        secrets = Secrets(self.settings)
        staff = secrets.staff_token()
        async with Api(self.settings.driver_api_url, self.settings.tracking_api_url) as api:
            for number, day in enumerate(self.days):
                customer = place_of(day, stops_of(day.name)[1])
                for door in doors:
                    driver_id = self.driver_of(day, door)
                    token = secrets.driver_token(driver_id)
                    _ok(await api.driver("POST", f"/drivers/{driver_id}/on-duty", token))
                    body = {
                        "restaurant_id": FIRST_RESTAURANT + number,
                        "destination": {"lon_deg": customer.lon_deg, "lat_deg": customer.lat_deg},
                    }
                    made = _ok(await api.tracking("POST", "/orders", staff, body))
                    order_id = made["order_id"]
                    _ok(await api.tracking("POST", f"/orders/{order_id}/confirm", staff))
                    assign = {"driver_id": driver_id}
                    _ok(await api.tracking("POST", f"/orders/{order_id}/assign", staff, assign))
                    self.orders[driver_id] = UUID(order_id)
        with owner_connection(self.stack.database_admin_url) as conn:
            for door in doors:
                for day in self.days:
                    order = self.orders[self.driver_of(day, door)]
                    conn.execute(BACKDATE, (self.assigned_at(day), order))
            conn.commit()

    async def close_orders(self) -> None:
        """Cancel the orders and send the drivers home: others go on using the stack."""
        secrets = Secrets(self.settings)
        async with Api(self.settings.driver_api_url, self.settings.tracking_api_url) as api:
            for driver_id, order_id in self.orders.items():
                _ok(await api.tracking("POST", f"/orders/{order_id}/cancel", secrets.staff_token()))
                token = secrets.driver_token(driver_id)
                _ok(await api.driver("POST", f"/drivers/{driver_id}/off-duty", token))

    async def read_jumps(self) -> int:
        """How many points GET /track/{order}/history flags as jumps, over all days."""
        staff = Secrets(self.settings).staff_token()
        flagged = 0
        async with Api(self.settings.driver_api_url, self.settings.tracking_api_url) as api:
            for driver_id in self.drivers():
                path = f"/track/{self.orders[driver_id]}/history"
                found = _ok(await api.tracking("GET", path, staff))
                points = [f for f in found["features"] if f["geometry"]["type"] == "Point"]
                flagged += sum(point["properties"]["jump"] for point in points)
        return flagged

    # -- pass 1: the whole stack ----------------------------------------------------------------

    async def over_mqtt(self) -> None:
        """Let every phone write its day in the order of arrival, and send it."""
        await asyncio.gather(*(self._send(day) for day in self.days))

    async def _send(self, day: Trace) -> None:
        driver_id = self.driver_of(day)
        async with phone_of(driver_id, self.settings) as phone:
            await phone.connected(SETTLE_WITHIN_S)
            for start in range(0, len(day.fixes), CHUNK_FIXES):
                for body in self.bodies(day)[start : start + CHUNK_FIXES]:
                    phone.device.write(body)
                phone.journal.commit()
                phone.device.pump()
                await asyncio.sleep(0)
            if not await phone.settled(SETTLE_WITHIN_S):
                raise AssertionError(f"{driver_id}: {phone.device.pending} fixes not committed")
        self.say(f"{driver_id}: {len(day.fixes):,} fixes sent and passed by the watermark")

    def bodies(self, day: Trace) -> list[dict[str, object]]:
        """The day's fixes as its phone writes them, without boot and seq."""
        return [
            {
                "fix_at": wire_instant(day.moved(fix.fix_s, self.ends_at)),
                "lat_deg": fix.place.lat_deg,
                "lon_deg": fix.place.lon_deg,
                **fix.values(),
            }
            for fix in day.fixes
        ]

    # -- the same over HTTP ----------------------------------------------------------------------

    async def over_http(self) -> dict[str, Fates]:
        """Send every day without boot and seq, as another maker's app would; what became of it."""
        staff = Secrets(
            self.settings
        ).staff_token()  # a driver may send 1,000 at once, a day has more
        fates: dict[str, Fates] = {}
        async with Api(self.settings.driver_api_url, self.settings.tracking_api_url) as api:
            for day in self.days:
                path = f"/drivers/{self.driver_of(day, 'http')}/locations"
                found: list[dict[str, str]] = []
                bodies = self.bodies(day)
                for start in range(0, len(bodies), HTTP_FIXES):
                    batch = {"fixes": bodies[start : start + HTTP_FIXES]}
                    found += _ok(await api.driver("POST", path, staff, batch))["outcomes"]
                fates[day.name] = {
                    seq: " ".join(filter(None, (one["outcome"], one.get("reason"))))
                    for seq, one in enumerate(found, 1)
                }
        return fates

    # -- what became of it -----------------------------------------------------------------------

    def standing(self, door: str = "mqtt") -> Standing:
        """All that must not depend on the order of arrival, of the drivers of one door."""
        with owner_connection(self.stack.database_admin_url) as conn:
            return standing_in(conn, self.drivers(door))

    def fates(self) -> dict[str, Fates]:
        """What became of every fix that was sent over MQTT, by day and seq."""
        days = {self.driver_of(day): day.name for day in self.days}
        fates: dict[str, Fates] = {name: {} for name in days.values()}
        for letter in self.dead_letters():
            found: list[Any] = list(letter.headers() or [])
            headers = {name: value.decode() for name, value in found}
            for fault in headers["detail"].split("; "):
                seq = int(fault.removeprefix("seq "))
                fates[days[headers["driver_id"]]][seq] = f"rejected {headers['reason']}"
        for row in self.standing()["history"]:
            quarantine = row["quarantine"]
            fate = f"quarantined {quarantine}" if quarantine else "committed"
            fates[days[row["driver_id"]]][row["seq"]] = fate
        return fates

    def dead_letters(self) -> list[Message]:
        """The dead letters of these phones."""
        with owner_connection(self.stack.database_admin_url) as conn:
            rows = standing_in(conn, self.drivers(), ["boots"])["boots"]
        keys = {row["driver_id"].encode() for row in rows if row["rejected"] != "{}"}
        if not keys:
            return []
        ours: Callable[[Message], bool] = lambda message: message.key() in keys  # noqa: E731
        letters = read_topic_at(
            self.bootstrap_servers,
            "dead-letter",
            lambda messages: keys <= {message.key() for message in messages},
        )
        return list(filter(ours, letters))

    # -- pass 2: shuffled into an empty database ---------------------------------------------------

    def records(self) -> list[tuple[str, Fix, int]]:
        """Every fix of these phones as Kafka has it: (driver, fix, arrival in ms). First copies."""
        keys = {driver_id.encode(): driver_id for driver_id in self.drivers()}
        wanted = {
            (self.driver_of(day), seq) for day in self.days for seq in range(1, len(day.fixes) + 1)
        }
        first: dict[tuple[str, int], tuple[str, Fix, int]] = {}

        def take(messages: Sequence[Message]) -> bool:
            first.clear()
            for message in messages:
                driver_id = keys.get(message.key() or b"")
                for fix in decode_position(message.value() or b"") if driver_id else ():
                    if isinstance(fix, Fix) and driver_id and fix.seq is not None:
                        arrived_ms = message.timestamp()[1]
                        first.setdefault((driver_id, fix.seq), (driver_id, fix, arrived_ms))
            return wanted <= first.keys()

        read_topic_at(self.bootstrap_servers, "driver-pos", take)
        return list(first.values())

    def shuffled_into(self, database: Database, folder: Path, seed: int) -> Standing:
        """Send the same records, shuffled and every tenth twice, into an empty database."""
        fleet = Fleet(database)
        admin.register_restaurants(fleet.conn, restaurants_of(self.days))
        fleet.add_drivers(*self.drivers())
        for number, day in enumerate(self.days):
            order_id = fleet.assigned_order(
                self.driver_of(day),
                restaurant_id=FIRST_RESTAURANT + number,
                customer=place_of(day, stops_of(day.name)[1]),
            )
            fleet.backdate_assignment(order_id, self.assigned_at(day))
        records = self.records()
        records += records[::10]
        random.Random(seed).shuffle(records)
        topic = f"{self.tag}-shuffled-{seed}"
        others = {name: f"{topic}-{name}" for name in ("updates", "positions", "dead-letter")}
        create_topics(
            self.bootstrap_servers,
            topics=[
                Topic(topic, 12, DAY_MS),
                *(Topic(name, 1, DAY_MS) for name in others.values()),
            ],
        )
        producer = Producer(
            {
                "bootstrap.servers": self.bootstrap_servers,
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
            MQTT_URL="mqtt://127.0.0.1:1",  # nobody: two of one name would push each other out
            KAFKA_BOOTSTRAP_SERVERS=self.bootstrap_servers,
            KAFKA_TOPIC=topic,
            KAFKA_GROUP_ID=topic,
            KAFKA_UPDATES_TOPIC=others["updates"],
            KAFKA_POSITIONS_TOPIC=others["positions"],
            KAFKA_DEAD_LETTER_TOPIC=others["dead-letter"],
        )
        try:
            driver_events.start()
            wait_until(
                lambda: database.value(OFFSETS) == len(records), SETTLE_WITHIN_S, "shuffled fixes"
            )
        finally:
            driver_events.stop()
        standing = standing_in(fleet.conn, self.drivers())
        fleet.close()
        return standing


class WithoutBroker(Service):
    """A driver_events whose devices nobody waits for: ready without its broker."""

    def is_ready(self) -> bool:
        _, body = self.get("/readyz")
        if not body:
            return False
        parts = json.loads(body)
        return bool(parts.get("database") and parts.get("kafka"))


def restaurants_of(days: Sequence[Trace]) -> list[admin.NewRestaurant]:
    """A restaurant at the first stop of each day's order."""
    return [
        admin.NewRestaurant(
            FIRST_RESTAURANT + number, day.name, *place_of(day, stops_of(day.name)[0])
        )
        for number, day in enumerate(days)
    ]


def standing_in(conn: Any, drivers: Sequence[str], parts: Sequence[str] = ()) -> Standing:
    """Read what stands of these drivers."""
    with conn.cursor(row_factory=dict_row) as cursor:
        return {
            part: cursor.execute(STANDING[part], [list(drivers)]).fetchall()
            for part in parts or STANDING
        }


def count_fates(fates: Mapping[str, Fates]) -> Counter[str]:
    """How many fixes met each fate."""
    return Counter(fate for found in fates.values() for fate in found.values())


def _ok(answer: Answer) -> Any:
    assert answer.ok, answer
    return answer.body
