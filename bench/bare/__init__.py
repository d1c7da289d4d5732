"""The least that moves fixes from MQTT to a table: what `./run load --bare` measures ours against.

    bridge.py  scans PUBLISH frames in bulk, hands payloads to Kafka, joins PUBACKs
    sink.py    consume(n), decode, one COPY and one INSERT a batch, one commit

No validation, evidence, states, ranges, watermark or live feed; the table's key is that of our
history, nothing is kept over a restart, and whatever is wrong ends the process. Waits, linger and
fetches are ours. Both take their place in a stack whose services are stopped.
"""
