"""The least that moves fixes from MQTT to a table: what `./run load --bare` measures ours against.

    bridge.py  scans PUBLISH frames in bulk, hands payloads to Kafka, joins PUBACKs
    sink.py    consume(n), decode, one COPY and one INSERT a batch, one commit

No validation, dedupe, evidence, states, watermark or live feed; nothing is kept over a restart, and
whatever is wrong ends the process. Both take their place in a stack whose services are stopped.
"""
