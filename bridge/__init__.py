"""The bridge: hands every MQTT payload on to Kafka, and PUBACKs it only once Kafka has it.

    subscriber (one session per broker) ── Arrival ──> relay ── record ──> publisher ──> Kafka
        PUBACK, in the order received <── Chunk, when all its records are confirmed <──

It parses nothing but the topic. One thread drives all of it, in chunks.
"""
