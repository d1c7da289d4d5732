"""Phone days through the whole stack, then their Kafka records, shuffled, into an empty database.

over_mqtt    device journal → Mosquitto → bridge → Kafka → driver_events → PostGIS
shuffled     the records of that, each fix by itself with the arrival it had, in any order and
             every tenth twice → another topic → another driver_events → an empty database
over_http    POST /drivers/{id}/locations without boot and seq, as another maker's app would
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from confluent_kafka import Message

from device.device_session import open_device_session
from device.settings import DeviceSettings
from device.settings import FleetSecrets as Secrets
from doorstep.fix import wire_instant
from doorstep.provision import owner_connection
from doorstep.settings import MqttBroker
from doorstep.store import admin
from ops.stack.addresses import reach
from ops.stack.stack import Stack
from simulators.api import Answer, Api
from tests.integration.pipe_services import read_topic_at
from tests.traces.data import Trace
from tests.traces.days import stops_of
from tests.traces.orders import place_of
from tests.traces.standing import Standing, refused_in, standing_in

CHUNK_FIXES = 32  # what a phone writes between two fsyncs
HTTP_FIXES = 256
SETTLE_WITHIN_S = 180.0
FIRST_RESTAURANT = 500_001
ASSIGNED_BEFORE = timedelta(seconds=60)

BACKDATE = "UPDATE doorstep.assignment SET assigned_at = %s WHERE order_id = %s"

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

    # -- who and where ------------------------------------------------------------------------

    def driver_of(self, day: Trace, door: str = "mqtt") -> str:
        """The driver that carries a day's phone."""
        return f"{self.tag}-{door}-{day.name.rpartition('/')[2]}"

    def drivers(self, door: str = "mqtt") -> list[str]:
        return [self.driver_of(day, door) for day in self.days]

    @property
    def settings(self) -> DeviceSettings:
        """The phones' settings."""
        at, paths = self.stack.addresses, self.stack.paths
        return DeviceSettings(
            mqtt_url=tuple(
                MqttBroker(one.host, one.port, tls=False) for one in map(reach, at.mqtt)
            ),
            fleet_key_file=paths.fleet_key_file,
            staff_token_file=paths.staff_token_file,
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
        bodies = self.bodies(day)
        async with open_device_session(driver_id, self.settings) as phone:
            await phone.connected(SETTLE_WITHIN_S)
            for start in range(0, len(bodies), CHUNK_FIXES):
                for body in bodies[start : start + CHUNK_FIXES]:
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
        standing = self.standing()
        fates: dict[str, Fates] = {name: {} for name in days.values()}
        for (driver_id, seq), reason in self._reasons(refused_in(standing)).items():
            fates[days[driver_id]][seq] = f"rejected {reason}"
        for row in standing["history"]:
            quarantine = row["quarantine"]
            fate = f"quarantined {quarantine}" if quarantine else "committed"
            fates[days[row["driver_id"]]][row["seq"]] = fate
        return fates

    def _reasons(self, refused: set[tuple[str, int]]) -> dict[tuple[str, int], str]:
        """Why each of these (driver, seq) was refused, by its dead letter."""
        reasons: dict[tuple[str, int], str] = {}

        def take(letters: Sequence[Message]) -> bool:
            for letter in letters:
                found: list[Any] = list(letter.headers() or [])
                headers = {name: value.decode() for name, value in found}
                for fault in headers.get("detail", "").split("; "):
                    if fault.startswith("seq "):
                        key = (headers["driver_id"], int(fault.removeprefix("seq ")))
                        reasons[key] = headers["reason"]
            return refused <= reasons.keys()

        if refused:
            read_topic_at(self.bootstrap_servers, "dead-letter", take)
        return {key: reasons[key] for key in refused}


def restaurants_of(days: Sequence[Trace]) -> list[admin.NewRestaurant]:
    """A restaurant at the first stop of each day's order."""
    return [
        admin.NewRestaurant(
            FIRST_RESTAURANT + number, day.name, *place_of(day, stops_of(day.name)[0])
        )
        for number, day in enumerate(days)
    ]


def count_fates(fates: Mapping[str, Fates]) -> Counter[str]:
    """How many fixes met each fate."""
    return Counter(fate for found in fates.values() for fate in found.values())


def _ok(answer: Answer) -> Any:
    assert answer.ok, answer
    return answer.body
