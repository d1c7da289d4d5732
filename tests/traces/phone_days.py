"""Phone-days through a running stack, over MQTT and over HTTP.

over_mqtt    device journal → Mosquitto → bridge → Kafka → driver_events → PostGIS
over_http    POST /drivers/{id}/locations without boot and seq, as other apps do

`shuffled` sends the Kafka records of over_mqtt to an empty database.
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

from bench.recordings.places import place_of
from bench.recordings.traces import Trace
from device.device_session import open_device_session
from device.settings import DeviceSettings
from device.settings import FleetSecrets as Secrets
from doorstep.fix import wire_instant
from doorstep.kafka.access import KafkaAccess
from doorstep.kafka.access_control import ADMIN
from doorstep.provision import owner_connection
from doorstep.settings import MqttBroker
from doorstep.store import admin
from ops.stack.addresses import reach
from ops.stack.stack import Stack
from simulators.api import Answer, Api
from tests.clients.kafka import read_topic
from tests.traces.final_state import FinalState, read_final_state, rejected_in
from tests.traces.stops import stops_of

CHUNK_FIXES = 32  # written between two fsyncs of the journal
HTTP_FIXES = 256
SETTLE_WITHIN_S = 180.0
FIRST_RESTAURANT = 500_001
ASSIGNED_BEFORE = timedelta(seconds=60)

BACKDATE = "UPDATE doorstep.assignment SET assigned_at = %s WHERE order_id = %s"

Outcomes = dict[int, str]
Reporter = Callable[[str], None]


@dataclass(slots=True)
class PhoneDays:
    """Phone-days on a running stack. `tag` is the prefix of the drivers' ids."""

    stack: Stack
    days: Sequence[Trace]
    ends_at: datetime
    journals: Path
    ack_every_s: float
    tag: str = "phone"
    say: Reporter = lambda _: None
    orders: dict[str, UUID] = field(default_factory=dict)  # by driver

    # -- drivers and addresses ----------------------------------------------------------------

    def driver_of(self, day: Trace, protocol: str = "mqtt") -> str:
        """Return the driver of a phone-day."""
        return f"{self.tag}-{protocol}-{day.name.rpartition('/')[2]}"

    def drivers(self, protocol: str = "mqtt") -> list[str]:
        return [self.driver_of(day, protocol) for day in self.days]

    @property
    def settings(self) -> DeviceSettings:
        """The devices' settings."""
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
    def access(self) -> KafkaAccess:
        """Kafka as its administrator reaches it."""
        return self.stack.kafka_access(ADMIN)

    def assigned_at(self, day: Trace) -> datetime:
        """Return when a day's order was assigned: a minute before the day began."""
        return day.moved(day.begins_s, self.ends_at) - ASSIGNED_BEFORE

    # -- orders -------------------------------------------------------------------------------

    async def place_orders(self, protocols: Sequence[str]) -> None:
        """Register restaurants and drivers, and assign an order to each driver."""
        self.stack.add_drivers([one for protocol in protocols for one in self.drivers(protocol)])
        with owner_connection(self.stack.database_admin_url) as conn:
            admin.register_restaurants(conn, restaurants_of(self.days))
            conn.commit()
        secrets = Secrets(self.settings)
        staff = secrets.staff_token()
        async with Api(self.settings.driver_api_url, self.settings.tracking_api_url) as api:
            for number, day in enumerate(self.days):
                customer = place_of(day, stops_of(day.name)[1])
                for protocol in protocols:
                    driver_id = self.driver_of(day, protocol)
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
            for protocol in protocols:
                for day in self.days:
                    order = self.orders[self.driver_of(day, protocol)]
                    conn.execute(BACKDATE, (self.assigned_at(day), order))
            conn.commit()

    async def close_orders(self) -> None:
        """Cancel the orders and take the drivers off duty: other tests use the stack."""
        secrets = Secrets(self.settings)
        async with Api(self.settings.driver_api_url, self.settings.tracking_api_url) as api:
            for driver_id, order_id in self.orders.items():
                _ok(await api.tracking("POST", f"/orders/{order_id}/cancel", secrets.staff_token()))
                token = secrets.driver_token(driver_id)
                _ok(await api.driver("POST", f"/drivers/{driver_id}/off-duty", token))

    async def read_jumps(self) -> int:
        """Count the points that GET /track/{order}/history flags as jumps, over all days."""
        staff = Secrets(self.settings).staff_token()
        flagged = 0
        async with Api(self.settings.driver_api_url, self.settings.tracking_api_url) as api:
            for driver_id in self.drivers():
                path = f"/track/{self.orders[driver_id]}/history"
                found = _ok(await api.tracking("GET", path, staff))
                points = [f for f in found["features"] if f["geometry"]["type"] == "Point"]
                flagged += sum(point["properties"]["jump"] for point in points)
        return flagged

    # -- over MQTT ----------------------------------------------------------------------------

    async def over_mqtt(self) -> None:
        """Journal and send every phone-day in order of arrival."""
        await asyncio.gather(*(self._send(day) for day in self.days))

    async def _send(self, day: Trace) -> None:
        driver_id = self.driver_of(day)
        bodies = self.bodies(day)
        async with open_device_session(driver_id, self.settings) as phone:
            await phone.wait_connected(SETTLE_WITHIN_S)
            for start in range(0, len(bodies), CHUNK_FIXES):
                for body in bodies[start : start + CHUNK_FIXES]:
                    phone.device.write(body)
                phone.journal.commit()
                phone.device.pump()
                await asyncio.sleep(0)
            if not await phone.wait_committed(SETTLE_WITHIN_S):
                raise AssertionError(f"{driver_id}: {phone.device.pending} fixes not committed")
        self.say(f"{driver_id}: {len(day.fixes):,} fixes sent and acknowledged")

    def bodies(self, day: Trace) -> list[dict[str, object]]:
        """Return the day's fixes as the phone writes them, without boot and seq."""
        return [
            {
                "fix_at": wire_instant(day.moved(fix.fix_s, self.ends_at)),
                "lat_deg": fix.place.lat_deg,
                "lon_deg": fix.place.lon_deg,
                **fix.values(),
            }
            for fix in day.fixes
        ]

    # -- over HTTP ----------------------------------------------------------------------------

    async def over_http(self) -> dict[str, Outcomes]:
        """Send every day without boot and seq, as other apps do, and return the outcomes."""
        staff = Secrets(self.settings).staff_token()  # without a driver's limit of 1,000 fixes
        outcomes: dict[str, Outcomes] = {}
        async with Api(self.settings.driver_api_url, self.settings.tracking_api_url) as api:
            for day in self.days:
                path = f"/drivers/{self.driver_of(day, 'http')}/locations"
                found: list[dict[str, str]] = []
                bodies = self.bodies(day)
                for start in range(0, len(bodies), HTTP_FIXES):
                    batch = {"fixes": bodies[start : start + HTTP_FIXES]}
                    found += _ok(await api.driver("POST", path, staff, batch))["outcomes"]
                outcomes[day.name] = {
                    seq: " ".join(filter(None, (one["outcome"], one.get("reason"))))
                    for seq, one in enumerate(found, 1)
                }
        return outcomes

    # -- results ------------------------------------------------------------------------------

    def final_state(self, protocol: str = "mqtt") -> FinalState:
        """Return the final state of the drivers of one protocol."""
        with owner_connection(self.stack.database_admin_url) as conn:
            return read_final_state(conn, self.drivers(protocol))

    def outcomes(self) -> dict[str, Outcomes]:
        """Return the outcome of every fix sent over MQTT, by day and seq."""
        days = {self.driver_of(day): day.name for day in self.days}
        final_state = self.final_state()
        outcomes: dict[str, Outcomes] = {name: {} for name in days.values()}
        for (driver_id, seq), reason in self._reasons(rejected_in(final_state)).items():
            outcomes[days[driver_id]][seq] = f"rejected {reason}"
        for row in final_state["history"]:
            quarantine = row["quarantine"]
            outcome = f"quarantined {quarantine}" if quarantine else "committed"
            outcomes[days[row["driver_id"]]][row["seq"]] = outcome
        return outcomes

    def _reasons(self, rejected: set[tuple[str, int]]) -> dict[tuple[str, int], str]:
        """Return the reason of each rejected (driver, seq), from its dead letter."""
        reasons: dict[tuple[str, int], str] = {}

        def is_complete(letters: Sequence[Message]) -> bool:
            for letter in letters:
                found: list[Any] = list(letter.headers() or [])
                headers = {name: value.decode() for name, value in found}
                for detail in headers.get("detail", "").split("; "):
                    if detail.startswith("seq "):
                        key = (headers["driver_id"], int(detail.removeprefix("seq ")))
                        reasons[key] = headers["reason"]
            return rejected <= reasons.keys()

        if rejected:
            read_topic(self.access, "dead-letter", is_complete)
        return {key: reasons[key] for key in rejected}


def restaurants_of(days: Sequence[Trace]) -> list[admin.NewRestaurant]:
    """Return a restaurant at the first stop of each day's order."""
    return [
        admin.NewRestaurant(
            FIRST_RESTAURANT + number, day.name, *place_of(day, stops_of(day.name)[0])
        )
        for number, day in enumerate(days)
    ]


def count_outcomes(outcomes: Mapping[str, Outcomes]) -> Counter[str]:
    """Count the fixes of each outcome."""
    return Counter(outcome for found in outcomes.values() for outcome in found.values())


def _ok(answer: Answer) -> Any:
    assert answer.ok, answer
    return answer.body
