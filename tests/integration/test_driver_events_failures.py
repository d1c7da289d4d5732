"""driver_events while servers fail and start, and with several instances."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path

from confluent_kafka import Message
from confluent_kafka.admin import AdminClient

from doorstep.fix import encode_fix
from ops.servers.kafka import KafkaServer
from ops.servers.mosquitto import AnonymousMosquitto
from ops.servers.postgres import running_cluster
from ops.servers.services import ServiceProcess, driver_events_process
from ops.servers.waiting import wait_until
from tests.clients.kafka import produce, read_topic
from tests.database import TEMPLATE, Database, create_template
from tests.integration.driver_events_inputs import DRIVERS, create_topic, fix, register
from tests.integration.recorded_state import stored
from tests.sql.fleet import Fleet


def test_driver_events__killed__records_everything_once(
    make_service: Callable[..., ServiceProcess], database: Database, kafka: KafkaServer, topic: str
) -> None:
    records = [(driver_id, encode_fix(fix(seq))) for seq in range(1, 501) for driver_id in DRIVERS]
    produce(kafka.access, topic, records)
    service = make_service(MAX_BATCH_FIXES="200")
    for _ in range(2):
        service.launch()
        before = len(stored(database))
        wait_until(lambda before=before: len(stored(database)) > before)
        service.kill()
    service.start()
    wait_until(lambda: len(stored(database)) == len(records), 60)
    assert not database.rows("SELECT * FROM doorstep.outbox")


def test_driver_events__sigterm__exits_with_0(service: ServiceProcess) -> None:
    service.signal(signal.SIGTERM)
    assert service.exit_code == 0
    assert service.events()[-1] == "stopped"


def test_driver_events__starts_before_kafka_mosquitto_and_the_topic__waits_then_works(
    tmp_path: Path, database: Database
) -> None:
    register(database)
    kafka, mosquitto = KafkaServer(tmp_path / "kafka"), AnonymousMosquitto(tmp_path / "mosquitto")
    service = driver_events_process(
        tmp_path / "service", database.url("driver_events"), mosquitto.url, kafka.access
    )
    try:
        service.launch()
        wait_until(lambda: service.get("/readyz")[0] == 503)
        kafka.start()
        time.sleep(1)
        kafka.create_topics()
        mosquitto.start()
        service.wait_ready()
        produce(kafka.access, "driver-pos", [("d1", encode_fix(fix(1)))])
        wait_until(lambda: len(stored(database)) == 1)
    finally:
        for server in (service, kafka, mosquitto):
            server.stop()


def test_driver_events__database_restarts__pauses_and_loses_nothing(
    tmp_path: Path, kafka: KafkaServer, mosquitto: AnonymousMosquitto, topic: str
) -> None:
    with running_cluster() as cluster:
        create_template(cluster)
        database = Database(cluster, TEMPLATE)
        register(database)
        service = driver_events_process(
            tmp_path / "service",
            database.url("driver_events"),
            mosquitto.url,
            kafka.access,
            KAFKA_TOPIC=topic,
            KAFKA_GROUP_ID=f"group-{topic}",
        )
        try:
            service.start()
            for part, end in enumerate((cluster.kill, cluster.stop)):
                end()
                wait_until(lambda: service.get("/readyz")[0] == 503)
                seqs = range(part * 50 + 1, part * 50 + 51)
                produce(
                    kafka.access,
                    topic,
                    [(one, encode_fix(fix(n))) for one in DRIVERS for n in seqs],
                )
                wait_until(lambda: "waiting_for_database" in service.events())
                cluster.start()
                expected = seqs[-1] * len(DRIVERS)
                wait_until(lambda n=expected: len(stored(database)) == n, 60)
                service.wait_ready()
            assert not database.rows("SELECT * FROM doorstep.outbox")
            assert service.metric("doorstep_driver_events_dead_letters_total") == 0
        finally:
            service.stop()


def test_driver_events__topic_recreated__is_read_from_its_beginning(
    service: ServiceProcess, database: Database, kafka: KafkaServer, topic: str
) -> None:
    produce(kafka.access, topic, [("d1", encode_fix(fix(n))) for n in range(1, 31)])
    wait_until(lambda: len(stored(database)) == 30)
    client = AdminClient({**kafka.access.as_librdkafka_dict()})
    for answer in client.delete_topics([topic]).values():
        answer.result(30)
    wait_until(lambda: topic not in client.list_topics(timeout=5).topics)
    create_topic(kafka, topic)
    produce(kafka.access, topic, [("d1", encode_fix(fix(n))) for n in range(31, 41)])
    wait_until(lambda: len(stored(database)) == 40, 60)


def test_driver_events__two_instances__record_each_fix_once(
    make_service: Callable[..., ServiceProcess], database: Database, kafka: KafkaServer, topic: str
) -> None:
    first, second = make_service(), make_service(MQTT_USERNAME="driver_events-2")
    first.start()
    produce(
        kafka.access,
        topic,
        [(one, encode_fix(fix(n))) for one in DRIVERS for n in range(1, 51)],
    )
    second.start()
    produce(
        kafka.access,
        topic,
        [(one, encode_fix(fix(n))) for one in DRIVERS for n in range(51, 101)],
    )
    wait_until(lambda: len(stored(database)) == 100 * len(DRIVERS))
    wait_until(lambda: second.metric("doorstep_driver_events_lag") == 0)
    second.kill()
    produce(
        kafka.access,
        topic,
        [(one, encode_fix(fix(n))) for one in DRIVERS for n in range(101, 121)],
    )
    wait_until(lambda: len(stored(database)) == 120 * len(DRIVERS), 60)
    assert not database.rows("SELECT * FROM doorstep.outbox")


def test_driver_events__second_instance_of_the_name__is_fenced_and_rejoins(
    make_service: Callable[..., ServiceProcess], database: Database, kafka: KafkaServer, topic: str
) -> None:
    first, second = make_service(), make_service()
    first.start()
    produce(
        kafka.access,
        topic,
        [(one, encode_fix(fix(n))) for one in DRIVERS for n in range(1, 11)],
    )
    wait_until(lambda: len(stored(database)) == 10 * len(DRIVERS))
    second.start()
    wait_until(
        lambda: first.metric('doorstep_driver_events_rejoins_total{reason="fenced"}') > 0, 60
    )
    second.kill()
    produce(
        kafka.access,
        topic,
        [(one, encode_fix(fix(n))) for one in DRIVERS for n in range(11, 21)],
    )
    wait_until(lambda: len(stored(database)) == 20 * len(DRIVERS), 90)
    assert first.exit_code is None


def test_driver_events__kafka_killed__outbox_keeps_its_records(
    tmp_path: Path, database: Database, mosquitto: AnonymousMosquitto
) -> None:
    register(database)
    kafka = KafkaServer(tmp_path / "kafka")
    service = driver_events_process(
        tmp_path / "service", database.url("driver_events"), mosquitto.url, kafka.access
    )
    try:
        kafka.start()
        kafka.create_topics()
        service.start()
        produce(
            kafka.access,
            "driver-pos",
            [("d1", encode_fix(fix(n))) for n in range(1, 101)],
        )
        wait_until(lambda: len(stored(database)) == 100)
        kafka.kill()
        fleet = Fleet(database)
        fleet.command_driver("d5", "on_duty")
        order_id = str(fleet.assigned_order("d5"))
        fleet.close()
        wait_until(lambda: service.get("/readyz")[0] == 503)
        kafka.start()
        produce(
            kafka.access,
            "driver-pos",
            [("d1", encode_fix(fix(n))) for n in range(101, 201)],
        )
        wait_until(lambda: len(stored(database)) == 200, 60)
        service.wait_ready()

        def all_three(messages: list[Message]) -> bool:
            mine = [one for one in messages if one.key() == order_id.encode()]
            return {json.loads(one.value() or b"")["order_seq"] for one in mine} == {1, 2, 3}

        read_topic(kafka.access, "tracking-updates", all_three)
    finally:
        for server in (service, kafka):
            server.stop()
