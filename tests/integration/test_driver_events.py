"""driver_events between a real Kafka, PostgreSQL and Mosquitto."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import timedelta

from confluent_kafka import Message

from doorstep.fix import Fix, encode_fix, encode_position, encode_void
from ops.servers.kafka import KafkaServer
from ops.servers.mosquitto import AnonymousMosquitto
from ops.servers.services import ServiceProcess
from ops.servers.waiting import wait_until
from tests.clients.kafka import produce, read_topic
from tests.clients.mqtt import DriverClient
from tests.database import Database
from tests.factories import AWAY, CUSTOMER, RESTAURANT, make_walk, now
from tests.integration.driver_events_inputs import fix
from tests.integration.recorded_state import everything, offsets, stored
from tests.sql.fleet import Fleet


def letters_of(kafka: KafkaServer, key: bytes, count: int) -> list[Message]:
    """Return the dead letters of a driver."""

    def enough(messages: list[Message]) -> bool:
        return sum(message.key() == key for message in messages) >= count

    return [one for one in read_topic(kafka.access, "dead-letter", enough) if one.key() == key]


def headers_of(message: Message) -> dict[str, str]:
    return {name: value.decode() for name, value in message.headers() or []}


def test_driver_events__a_fix__is_stored_acknowledged_and_in_the_live_feed(
    service: ServiceProcess,
    database: Database,
    kafka: KafkaServer,
    mosquitto: AnonymousMosquitto,
    topic: str,
) -> None:
    phone = DriverClient(mosquitto, "d1")
    sent = [fix(1), fix(2), fix(4)]
    produce(kafka.access, topic, [("d1", encode_fix(one)) for one in sent])
    wait_until(lambda: len(stored(database)) == 3)
    wait_until(lambda: phone.received and json.loads(phone.received[-1][1])["seq"] == 4)
    heard_on, ack = phone.received[-1]
    assert heard_on == "doorstep/v1/drivers/d1/ack"
    assert json.loads(ack) == {"boot": "b1", "seq": 4, "missing": [[3, 3]]}
    phone.close()

    newest_ms = round(sent[-1].fix_at.timestamp() * 1000)

    def has_newest(messages: list[Message]) -> bool:
        positions = [one for m in messages for one in json.loads(m.value() or b"")["positions"]]
        return any(one[:2] == ["d1", newest_ms] for one in positions)

    read_topic(kafka.access, "tracking-positions", has_newest)
    assert service.metric("doorstep_driver_events_fixes_total") == 3
    assert service.metric("doorstep_driver_events_commit_latency_seconds_count") >= 6


def test_driver_events__same_records_again__are_duplicates_and_acknowledged_again(
    service: ServiceProcess,
    database: Database,
    kafka: KafkaServer,
    mosquitto: AnonymousMosquitto,
    topic: str,
) -> None:
    phone = DriverClient(mosquitto, "d2")
    records = [("d2", encode_position([fix(n) for n in range(1, 101)]))]
    produce(kafka.access, topic, records)
    wait_until(lambda: len(stored(database)) == 100)
    wait_until(lambda: phone.received)
    acks = len(phone.received)
    produce(kafka.access, topic, records)
    wait_until(lambda: len(phone.received) > acks)
    assert json.loads(phone.received[-1][1]) == {"boot": "b1", "seq": 100, "missing": []}
    assert len(stored(database)) == 100
    phone.close()


def test_driver_events__bad_and_good__stores_the_good_and_makes_dead_letters(
    service: ServiceProcess,
    database: Database,
    kafka: KafkaServer,
    mosquitto: AnonymousMosquitto,
    topic: str,
) -> None:
    array = encode_position([fix(1), fix(2), fix(3, age_s=100_000), fix(5)])
    array = array.replace(b'"seq":2,', b'"seq":2,"void":7,')
    phone = DriverClient(mosquitto, "d3")
    produce(
        kafka.access,
        topic,
        [
            ("d3", array),
            ("d3", b"not json"),
            ("d3", encode_void("b1", 4)),
            ("d3", encode_fix(fix(1, lat_deg=AWAY.lat_deg + 0.001))),
            ("stranger", encode_fix(fix(1))),
        ],
    )
    letters = letters_of(kafka, b"d3", 4)
    found = {headers_of(one)["reason"]: one for one in letters}
    assert set(found) == {"wrong_type", "too_old", "not_json", "conflict"}
    assert found["too_old"].value() == array
    assert found["not_json"].value() == b"not json"
    assert headers_of(found["not_json"])["topic"] == "doorstep/v1/drivers/d3/position"
    assert headers_of(found["not_json"])["source"] == "mqtt"
    [letter] = letters_of(kafka, b"stranger", 1)
    assert headers_of(letter)["reason"] == "unknown_driver"
    assert stored(database) == [("d3", "b1", 1), ("d3", "b1", 5)]
    # the watermark passes refused and void ones: devices do not resend them
    wait_until(lambda: phone.received and json.loads(phone.received[-1][1])["seq"] == 5)
    assert json.loads(phone.received[-1][1])["missing"] == []
    phone.close()


def test_driver_events__locked_driver__is_parked_and_others_are_recorded(
    service: ServiceProcess,
    database: Database,
    kafka: KafkaServer,
    mosquitto: AnonymousMosquitto,
    topic: str,
) -> None:
    phone = DriverClient(mosquitto, "d1")
    with database.connect() as conn:
        conn.execute("SELECT FROM driver_state WHERE driver_id = 'd1' FOR UPDATE")
        produce(
            kafka.access,
            topic,
            [(one, encode_fix(fix(1))) for one in ("d1", "d2", "d3")],
        )
        wait_until(lambda: len(stored(database)) == 2)
        time.sleep(2)
        assert stored(database) == [("d2", "b1", 1), ("d3", "b1", 1)]
        assert not [ack for _, ack in phone.received if json.loads(ack)["seq"] >= 1]
    wait_until(lambda: len(stored(database)) == 3)
    wait_until(lambda: phone.received and json.loads(phone.received[-1][1])["seq"] == 1)
    phone.close()


def test_driver_events__a_flood__is_parked_held_back_and_recorded_at_the_quota(
    service: ServiceProcess,
    database: Database,
    kafka: KafkaServer,
    mosquitto: AnonymousMosquitto,
    topic: str,
) -> None:
    database.rows("UPDATE doorstep.limits SET quota_per_s = 100, quota_burst = 256")
    phone = DriverClient(mosquitto, "d1")
    seqs = range(1, 2000, 2)  # each a gap, so no watermark covers more than the first
    produce(kafka.access, topic, [("d1", encode_fix(fix(seq, age_s=2000 - seq))) for seq in seqs])
    produce(kafka.access, topic, [(one, encode_fix(fix(1))) for one in ("d2", "d3")])
    wait_until(lambda: {"d2", "d3"} <= {driver_id for driver_id, _, _ in stored(database)})
    wait_until(lambda: any("hold_s" in json.loads(ack) for _, ack in phone.received))
    mine = [("d1", "b1", seq) for seq in seqs]
    wait_until(lambda: [one for one in stored(database) if one[0] == "d1"] == mine)
    assert database.rows("SELECT * FROM doorstep.driver_quota") == []
    wait_until(lambda: "hold_s" not in json.loads(phone.received[-1][1]))
    phone.close()


def test_driver_events__row_refused_by_the_database__becomes_the_only_dead_letter(
    service: ServiceProcess, database: Database, kafka: KafkaServer, topic: str
) -> None:
    with database.connect(autocommit=True) as conn:  # a constraint that the decoder does not check
        conn.execute("ALTER TABLE fix_history ADD CHECK (altitude_m IS DISTINCT FROM 666)")
    records = [("d4", encode_fix(fix(n))) for n in range(1, 40)]
    records.insert(20, ("d4", encode_fix(fix(40, altitude_m=666))))
    produce(kafka.access, topic, records)
    wait_until(lambda: len(stored(database)) == 39)
    [letter] = letters_of(kafka, b"d4", 1)
    assert headers_of(letter)["reason"] == "refused_by_database"
    assert letter.value() == records[20][1]


def test_driver_events__order_changes__reach_tracking_updates_in_order(
    service: ServiceProcess, database: Database, kafka: KafkaServer
) -> None:
    fleet = Fleet(database)
    fleet.command_driver("d5", "on_duty")
    order_id = str(fleet.assigned_order("d5"))
    fleet.close()

    def updates(messages: list[Message]) -> list[dict[str, object]]:
        mine = [one for one in messages if one.key() == order_id.encode()]
        return [json.loads(one.value() or b"") for one in mine]

    found = updates(
        read_topic(kafka.access, "tracking-updates", lambda all_: len(updates(all_)) >= 3)
    )
    assert [one["state"] for one in found] == ["created", "confirmed", "assigned"]
    assert [one["order_seq"] for one in found] == [1, 2, 3]
    wait_until(lambda: not database.rows("SELECT * FROM doorstep.outbox"))


def test_driver_events__whole_topic_replayed__changes_nothing(
    make_service: Callable[..., ServiceProcess], database: Database, kafka: KafkaServer, topic: str
) -> None:
    fleet = Fleet(database)
    orders = {}
    for driver_id in ("d1", "d2", "d3"):
        fleet.command_driver(driver_id, "on_duty")
        orders[driver_id] = fleet.assigned_order(driver_id)
        fleet.backdate_assignment(orders[driver_id], now() - timedelta(minutes=20))
    places = ((RESTAURANT, 100.0), (RESTAURANT.north(600), 100.0), (CUSTOMER, 100.0))
    records = []
    for driver_id in orders:
        walk = make_walk(now() - timedelta(minutes=15), *places, driver_id=driver_id)
        payloads = [
            encode_fix(Fix(row[2], row[3], row[4], lat_deg=row[7], lon_deg=row[6]))  # type: ignore[arg-type]
            for row in walk
        ]
        records += [(driver_id, payload) for payload in [*payloads[::2], *payloads]]
        records += [(driver_id, b"not json"), (driver_id, encode_void("b1", 100))]
        records.append((driver_id, encode_fix(fix(200, age_s=100_000))))
        records.append((driver_id, encode_fix(fix(1))))  # a conflict
    first = make_service()
    first.start()
    produce(kafka.access, topic, records)
    wait_until(lambda: sum(offsets(database).values()) == len(records))
    first.stop()
    fleet.command_order(orders["d1"], "deliver")
    fleet.close()
    before, ends = everything(database), offsets(database)
    assert [row["state"] for row in before["orders"]].count("at_customer") == 2
    assert len(before["evidence"]) == 4 * len(orders)

    database.rows("UPDATE doorstep.kafka_offset SET next_offset = 0")
    again = make_service()
    again.start()
    wait_until(lambda: offsets(database) == ends)
    assert again.metric("doorstep_driver_events_fixes_total") >= len(before["fix_history"])
    assert everything(database) == before
