"""Unmodified phone apps on the running stack: every vector of tests/phones, at its own door."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import httpx
import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from doorstep.credentials import driver_token, phone_username, token_sha256
from doorstep.errors import UnknownDriver
from doorstep.mqtt_topics import phone_topic_of, topic_of
from doorstep.phones.links import Phone
from doorstep.provision import owner_connection
from ops.servers.waiting import wait_until
from ops.stack.addresses import reach
from ops.stack.phones import end_phone, give_phone
from ops.stack.stack import Stack
from tests.integration.devices import letter_ends, letters_after, outbox_has_no_letters, scrape
from tests.integration.phone_vectors import Vector, now_instead_of, read_vectors

VECTORS = read_vectors()
HTTP = [one for one in VECTORS.values() if one.transport == "http"]
MQTT = [one for one in VECTORS.values() if one.transport == "mqtt"]
TOKENS = {"anna": "drv_AAAA-test-token-of-anna", "ben": "drv_BBBB-test-token-of-ben"}
COLUMNS = (
    "driver_id",
    "fix_at",
    "lat_deg",
    "lon_deg",
    "accuracy_m",
    "speed_mps",
    "heading_deg",
    "altitude_m",
    "battery",
)
PROTOCOLS = {"3.1": MQTTProtocolVersion.MQTTv31, "3.1.1": MQTTProtocolVersion.MQTTv311}


@dataclass
class Phones:
    """The stack with two drivers' phones, whose tokens are those of the vectors."""

    stack: Stack
    http: httpx.Client
    anna: Phone

    def rows(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        with owner_connection(self.stack.database_admin_url) as conn:
            cursor = conn.execute(statement, parameters)  # type: ignore[arg-type]
            return cursor.fetchall() if cursor.description else []

    def stored(self, since: datetime) -> list[tuple[Any, ...]]:
        """Return what was recorded since an instant of the database's clock."""
        return self.rows(
            f"SELECT {', '.join(COLUMNS)} FROM doorstep.fix_history"
            " WHERE driver_id IN ('anna', 'ben') AND recorded_at > %s ORDER BY fix_at",
            since,
        )

    def now(self) -> datetime:
        [(now,)] = self.rows("SELECT clock_timestamp()")
        return now  # type: ignore[no-any-return]

    def send(self, vector: Vector) -> httpx.Response:
        """Send a request as the app does."""
        return self.http.request(
            vector.method, vector.path, content=vector.body.encode(), headers=vector.headers
        )

    def publish(self, vector: Vector, *, is_retained: bool | None = None) -> None:
        """Publish a message as the app does, but to the topic of the configuration that it was
        given, in a session that is kept. Returns after the PUBACK."""
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id="",
            clean_session=True,
            protocol=PROTOCOLS[vector.headers["protocol"]],
        )
        with mqtt_session(self.stack, client, self.anna):
            retain = vector.headers["retain"] if is_retained is None else is_retained
            topic = phone_topic_of(vector.topic.split("/")[1])
            qos = vector.headers["qos"]
            client.publish(topic, vector.body.encode(), qos, retain).wait_for_publish(10)


class mqtt_session:  # noqa: N801 - a context manager
    """Connect a client with the credential of a phone during the block."""

    def __init__(self, stack: Stack, client: mqtt.Client, phone: Phone) -> None:
        self._client, self._broker = client, reach(stack.addresses.mqtt[0])
        client.username_pw_set(phone_username(phone.driver_id), phone.token)

    def __enter__(self) -> mqtt.Client:
        self._client.connect(self._broker.host, self._broker.port)
        self._client.loop_start()
        wait_until(self._client.is_connected, description="the phone is connected")
        return self._client

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture(scope="module")
def phones(stack: Stack) -> Iterator[Phones]:
    stack.add_drivers(list(TOKENS))
    anna, _ = (give_phone(stack, driver_id) for driver_id in TOKENS)
    with owner_connection(stack.database_admin_url) as conn:
        for driver_id, token in TOKENS.items():
            conn.execute(
                "UPDATE doorstep.phone_credential SET token_sha256 = %s WHERE driver_id = %s",
                (token_sha256(token), driver_id),
            )
    with httpx.Client(base_url=stack.addresses.driver_api_url, timeout=30) as http:
        yield Phones(stack, http, anna)


def assert_stored(found: Sequence[tuple[Any, ...]], wanted: Sequence[dict[str, Any]]) -> None:
    assert len(found) == len(wanted)
    for row, fix in zip(found, wanted, strict=True):
        values = dict(zip(COLUMNS, row, strict=True))
        assert values.pop("fix_at") == datetime.fromisoformat(fix["fix_at"])
        assert values.pop("driver_id") == fix["driver_id"]
        for name, value in values.items():
            assert value == pytest.approx(fix.get(name), abs=1e-3), name


def handled(phones: Phones) -> float:
    """Count the messages that driver_events has handled. Fixes over HTTP are not among them."""
    samples = scrape(phones.stack.addresses.driver_events)
    names = ("doorstep_driver_events_fixes_total", "doorstep_driver_events_phones_ignored_total")
    return sum(value for (name, _), value in samples.items() if name in names)


def ids(vectors: Sequence[Vector]) -> list[Any]:
    return [pytest.param(one, id=f"{one.name}-{one.client}".replace(" ", "_")) for one in vectors]


@pytest.mark.parametrize("vector", ids([one for one in HTTP if not one.is_database_away]))
def test_vector__over_http__has_its_status_body_fixes_and_dead_letter(
    phones: Phones, vector: Vector
) -> None:
    by = now_instead_of(vector)
    for name in vector.after:
        assert phones.send(VECTORS[name].shifted(by)).status_code == 200
    since, ends = phones.now(), letter_ends(phones.stack)
    vector = vector.shifted(by)
    answer = phones.send(vector)
    assert answer.status_code == vector.expect["status"], answer.text
    if "body" in vector.expect:
        assert answer.text == vector.expect["body"]
    assert_stored(phones.stored(since), vector.expect["fixes"])
    wait_until(lambda: outbox_has_no_letters(phones.stack))
    letters = [one for group in letters_after(phones.stack, ends).values() for one in group]
    if vector.expect["outcome"] == "dead_letter":
        [letter] = letters
        assert (letter.reason, letter.source) == (vector.expect["reason"], "http")
        assert letter.payload == vector.body.encode()
        assert letter.headers["driver_id"] == "anna"
    else:
        assert letters == []


@pytest.mark.parametrize("vector", ids([one for one in HTTP if one.is_database_away]))
def test_vector__database_away__is_503_and_succeeds_later(phones: Phones, vector: Vector) -> None:
    since = phones.now()
    vector = vector.shifted(now_instead_of(vector))
    phones.stack.stop_process("postgres")
    try:
        answer = phones.send(vector)
    finally:
        phones.stack.start_process("postgres")
        phones.stack.wait_ready()
    assert answer.status_code == vector.expect["status"]
    assert phones.stored(since) == []
    assert phones.send(vector).status_code == 200
    assert len(phones.stored(since)) == 1


@pytest.mark.parametrize("vector", ids(MQTT))
def test_vector__over_mqtt__has_its_fixes_and_dead_letter(phones: Phones, vector: Vector) -> None:
    by = now_instead_of(vector)
    for name in vector.after:
        count = handled(phones)
        phones.publish(VECTORS[name].shifted(by))
        wait_until(lambda count=count: handled(phones) > count)  # type: ignore[misc]
    since, ends, before = phones.now(), letter_ends(phones.stack), handled(phones)
    vector = vector.shifted(by)
    phones.publish(vector)
    wait_until(lambda: handled(phones) > before)
    assert_stored(phones.stored(since), vector.expect["fixes"])
    wait_until(lambda: outbox_has_no_letters(phones.stack))
    letters = [one for group in letters_after(phones.stack, ends).values() for one in group]
    if vector.expect["outcome"] == "dead_letter":
        [letter] = letters
        assert (letter.reason, letter.payload) == (vector.expect["reason"], vector.body.encode())
        assert letter.headers["topic"] == "owntracks/anna/phone"
    else:
        assert letters == []


LOCATION = VECTORS["s14"]


def good(phones: Phones) -> Vector:
    """Return a position of now."""
    return LOCATION.shifted(
        now_instead_of(LOCATION)
        + timedelta(
            seconds=len(phones.rows("SELECT FROM doorstep.fix_history WHERE driver_id = 'anna'"))
            % 60
        )
    )


def test_phone_token__at_every_other_route__is_no_token(phones: Phones) -> None:
    headers = {"Authorization": f"Bearer {TOKENS['anna']}"}
    fix = {"fix_at": phones.now().isoformat(), "lat_deg": 43.77, "lon_deg": 11.25}
    calls = [
        phones.http.patch("/drivers/anna/location", json=fix, headers=headers),
        phones.http.post("/drivers/anna/locations", json={"fixes": [fix]}, headers=headers),
        phones.http.get("/drivers/anna", headers=headers),
        phones.http.post("/drivers/anna/on-duty", headers=headers),
    ]
    assert [one.status_code for one in calls] == [401] * 4
    tracking = phones.stack.addresses.tracking_api_url
    assert httpx.get(f"{tracking}/orders", headers=headers).status_code == 401


def test_driver_token__at_the_phones_routes__is_no_token(phones: Phones) -> None:
    key = phones.stack.paths.fleet_key()
    device = driver_token(key, "anna")
    answers = [
        phones.http.post("/owntracks", content=b"", auth=("anna", device)),
        phones.http.post("/osmand", params={"id": device}),
        phones.http.get("/osmand", params={"id": device}),
        phones.http.post("/overland", headers={"Authorization": f"Bearer {device}"}),
    ]
    assert [one.status_code for one in answers] == [401] * 4


def test_phone_over_mqtt__other_topics__are_neither_written_nor_read(phones: Phones) -> None:
    heard: list[str] = []
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="x", clean_session=True)
    client.on_message = lambda *found: heard.append(found[2].topic)
    before = handled(phones)
    ends = letter_ends(phones.stack)
    with mqtt_session(phones.stack, client, phones.anna):
        for topic in ("owntracks/+/+", "owntracks/+/+/event", "doorstep/#"):
            client.subscribe(topic, 1)
        users = ("anna", "anna.phone")
        other = [topic_of(user, kind) for user in users for kind in ("position", "ack")]
        for topic in ("owntracks/ben/phone", "owntracks/anna/other", *other):
            client.publish(topic, good(phones).body.encode(), 1).wait_for_publish(10)
        phones.publish(good(phones))  # as the same user: it ends this session
        wait_until(lambda: handled(phones) > before)
    assert handled(phones) == before + 1
    assert letters_after(phones.stack, ends) == {}
    assert heard == []


def test_retained_position__at_a_new_session_of_the_bridge__does_not_come_again(
    phones: Phones,
) -> None:
    before = handled(phones)
    stale = LOCATION.shifted(now_instead_of(LOCATION))
    phones.publish(stale, is_retained=True)
    wait_until(lambda: handled(phones) == before + 1)
    stack = phones.stack
    stack.stop_process("bridge")
    session = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="bridge", clean_session=True)
    session.username_pw_set("bridge", stack.paths.mqtt_password("bridge"))
    broker = reach(stack.addresses.mqtt[0])
    session.connect(broker.host, broker.port)
    session.loop_start()
    wait_until(session.is_connected)
    session.disconnect()  # the bridge's session is gone
    session.loop_stop()
    stack.start_process("bridge")
    stack.wait_ready()
    phones.publish(good(phones), is_retained=False)
    wait_until(lambda: handled(phones) >= before + 2)
    assert handled(phones) == before + 2


def test_heard_of__over_http_and_mqtt__names_the_app(phones: Phones) -> None:
    answer = phones.send(VECTORS["s20"].shifted(now_instead_of(VECTORS["s20"])))
    assert answer.status_code == 200
    statement = "SELECT heard_app FROM doorstep.phone_credential WHERE driver_id = 'anna'"
    assert phones.rows(statement) == [("Traccar Client (ktor-client)",)]
    phones.publish(good(phones))
    wait_until(lambda: phones.rows(statement) == [("OwnTracks over MQTT",)])


def test_phone__ended_or_its_driver_revoked__may_not_send(phones: Phones) -> None:
    stack = phones.stack
    stack.add_drivers(["carla"])

    def status(phone: Phone) -> int:
        return phones.http.post("/osmand", params={"id": phone.token}).status_code

    first = give_phone(stack, "carla")
    assert status(first) == 200
    second = give_phone(stack, "carla", again=True)
    assert second.token != first.token
    assert status(second) == 200
    wait_until(lambda: status(first) == 401)
    end_phone(stack, "carla")
    wait_until(lambda: status(second) == 401)
    third = give_phone(stack, "carla")
    assert status(third) == 200
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="x", clean_session=True)
    client.reconnect_delay_set(60, 60)
    with mqtt_session(stack, client, third):
        stack.change_device("driver", "carla", "revoke")
        wait_until(lambda: status(third) == 401)
        wait_until(lambda: not client.is_connected(), description="the session has ended")
    with pytest.raises(UnknownDriver):
        give_phone(stack, "carla")
