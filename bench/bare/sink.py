"""`python -m bench.bare.sink PLAN`: a minimal Kafka-to-table sink.

PLAN is a JSON file: kafka, topic, database_url. Creates the table; stops when standard input
closes.
"""

from __future__ import annotations

import json
import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from confluent_kafka import Consumer

from doorstep.store.pool import connect

BATCH = 5_000
WAIT_S = 0.25  # as in driver_events
SESSION = 10_000  # ms

TABLES = """
    CREATE TABLE IF NOT EXISTS bare_fix (
        driver_id text COLLATE "C" NOT NULL, fix_at timestamptz NOT NULL,
        boot text NOT NULL, seq int8 NOT NULL, received_at timestamptz NOT NULL,
        lon_deg float8 NOT NULL, lat_deg float8 NOT NULL,
        accuracy_m float8, speed_mps float8, heading_deg float8,
        PRIMARY KEY (driver_id, fix_at, boot, seq)
    );
    CREATE TEMP TABLE incoming_bare_fix (LIKE bare_fix) ON COMMIT DELETE ROWS
"""
COPY = "COPY incoming_bare_fix FROM STDIN (FORMAT binary)"
INSERT = "INSERT INTO bare_fix SELECT * FROM incoming_bare_fix ON CONFLICT DO NOTHING"
TYPES = ("text", "timestamptz", "text", "int8", "timestamptz") + 5 * ("float8",)


class Fix(msgspec.Struct, gc=False):
    """A fix in JSON."""

    boot: str
    seq: int
    fix_at: int
    lat_deg: float
    lon_deg: float
    accuracy_m: float | None = None
    speed_mps: float | None = None
    heading_deg: float | None = None


def main() -> int:
    """Run until standard input ends."""
    plan = json.loads(Path(sys.argv[1]).read_text(encoding="ascii"))
    decode = msgspec.json.Decoder(Fix).decode
    decode_many = msgspec.json.Decoder(list[Fix]).decode
    consumer = Consumer(
        {
            **plan["kafka"],
            "group.id": "bare",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "session.timeout.ms": SESSION,
            "fetch.min.bytes": 65_536,  # as in driver_events
            "fetch.wait.max.ms": 20,
        }
    )
    consumer.subscribe([plan["topic"]])
    os.set_blocking(0, False)
    committed = reported_at = 0
    with connect(plan["database_url"], application_name="bare") as conn:
        conn.execute(TABLES)
        conn.commit()
        while True:
            messages = consumer.consume(BATCH, WAIT_S)
            if messages:
                with conn.cursor() as cursor, cursor.copy(COPY) as copy:
                    copy.set_types(TYPES)
                    for message in messages:
                        driver_id = (message.key() or b"").decode()
                        payload = message.value() or b""
                        received_at = datetime.fromtimestamp(message.timestamp()[1] / 1000, UTC)
                        fixes = decode_many(payload) if payload[:1] == b"[" else [decode(payload)]
                        for fix in fixes:
                            copy.write_row(
                                (
                                    driver_id,
                                    datetime.fromtimestamp(fix.fix_at / 1000, UTC),
                                    fix.boot,
                                    fix.seq,
                                    received_at,
                                    fix.lon_deg,
                                    fix.lat_deg,
                                    fix.accuracy_m,
                                    fix.speed_mps,
                                    fix.heading_deg,
                                )
                            )
                committed += conn.execute(INSERT).rowcount
                conn.commit()
                consumer.commit(asynchronous=True)
            now = int(time.time())
            if now != reported_at:
                reported_at = now
                ready = bool(consumer.assignment())
                sys.stdout.write(json.dumps({"committed": committed, "ready": ready}) + "\n")
                sys.stdout.flush()
                if _has_ended():
                    consumer.close()
                    return 0


def _has_ended() -> bool:
    try:
        return os.read(0, 4096) == b""
    except BlockingIOError:
        return False


if __name__ == "__main__":
    sys.exit(main())
