"""A simple bridge with paho: one callback, one produce and one PUBACK per message.

    python -m bench.plain_bridge MQTT_PORT KAFKA_BOOTSTRAP_SERVERS CLIENT_ID

It sends PUBACK after Kafka's confirmation, as ours. It lacks ordered PUBACKs, a reconnect after a
refused record, dead letters and readiness. `bench.bridge` compares with it.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from confluent_kafka import KafkaError, Producer
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

TOPIC = "doorstep/v1/drivers/+/position"


def main() -> None:
    """Relay until the process is killed."""
    port, kafka, client_id = int(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3]
    producer = Producer(
        {
            **kafka,
            "enable.idempotence": True,
            "partitioner": "murmur2_random",
            "linger.ms": 50,
            "queue.buffering.max.messages": 100_000,
        }
    )
    client = Client(
        CallbackAPIVersion.VERSION2,
        client_id=client_id,
        protocol=MQTTProtocolVersion.MQTTv5,
        manual_ack=True,
    )

    def on_message(_client: Client, _userdata: object, message: MQTTMessage) -> None:
        def on_delivery(error: KafkaError | None, _record: Any) -> None:
            if error is None:
                client.ack(message.mid, message.qos)

        key = message.topic.split("/")[3]
        producer.produce("driver-pos", bytes(message.payload), key, on_delivery=on_delivery)
        producer.poll(0)

    def on_connect(*_: object) -> None:
        client.subscribe(TOPIC, qos=1)

    def on_subscribe(*_: object) -> None:
        print("subscribed", flush=True)

    client.on_message = on_message
    client.on_connect = on_connect
    client.on_subscribe = on_subscribe
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.SessionExpiryInterval = 3600
    properties.ReceiveMaximum = 5000
    client.connect("127.0.0.1", port, clean_start=False, properties=properties)
    client.loop_start()
    while True:
        producer.poll(1.0)


if __name__ == "__main__":
    main()
