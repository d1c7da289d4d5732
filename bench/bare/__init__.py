"""The bare chain: a minimal pipeline from MQTT to a table, which `./run load --bare` compares with.

    bridge.py  scans PUBLISH packets in bulk, produces payloads to Kafka, joins PUBACKs
    sink.py    consume(n), decode, one COPY and one INSERT a batch, one commit

No validation, evidence, states, watermark or live stream; the table's key is that of fix_history.
Any error ends the process. Batch waits, linger and fetch settings equal the services'. Both run in
a stack whose services are stopped.
"""
