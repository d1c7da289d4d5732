"""driver_events: reads fixes from Kafka in batches and records each batch in one transaction.

    consumer ── records ──> batch ── rows ──> recorder: fixes, dead letters, offsets, one commit
                                                  │
                    acks (watermarks to devices) <┴> positions (live feed)
    outbox: order changes and dead letters from the database to Kafka, in a separate thread

`patch_sink` is the simple alternative: one PATCH per fix.
"""
