"""driver_events: reads fixes from Kafka in batches and records each batch in one transaction.

    source ── records ──> batch ── rows ──> recorder: fixes, dead letters, offsets, one commit
                                                │
              feedback (watermarks to devices) <┴> positions (live feed)
    outbox: order changes and dead letters from the database to Kafka, in a thread of its own

`patch_sink` is the simple alternative: one PATCH per fix.
"""
