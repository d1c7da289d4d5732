"""The bridge forwards every MQTT payload to Kafka and sends PUBACK once Kafka has confirmed it.

    Subscriber (a session per broker) ── ReceivedMessage ──> Relay ── record ──> Publisher
        PUBACK, in the order received <── AckBatch, when all its records are confirmed <──

It parses only the topic. One thread runs the loop.
"""
