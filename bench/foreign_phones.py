"""CPU time per fix of native devices alone, and with foreign phones among them.

    python -m bench.foreign_phones [--fixes 40000] [--drivers 200] [--share 0.05] [--runs 5]

Starts the whole native stack on free ports in a temporary folder. Each run sends as many fixes: all
from native devices, or `--share` of them from OwnTracks over MQTT. Variants alternate. Verifies
that every fix is committed. The load generator is not counted. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from collections.abc import Sequence

from bench.devices import Phone, connect_phones, make_fix, publish
from bench.ingest import PARTS
from bench.measure import Measurements, progress, report
from bench.process_cpu import cpu_s
from bench.running_stack import running_stack
from doorstep import mqtt_packets
from doorstep.credentials import mqtt_password, phone_token, phone_username, read_fleet_key
from doorstep.mqtt_topics import phone_topic_of
from doorstep.store.phones import issue_phone
from doorstep.store.pool import connect
from ops.servers.waiting import wait_until
from ops.stack.stack import Stack

NATIVE, MIXED = "native devices alone", "with foreign phones"
PHONES = 20
SECONDS = 10  # of a run: both variants have the same rate
TIMEOUT_S = 180.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the bench and print its result."""
    parser = argparse.ArgumentParser(
        prog="bench.foreign_phones",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--fixes", type=int, default=40_000, help="per run")
    parser.add_argument("--drivers", type=int, default=200)
    parser.add_argument("--share", type=float, default=0.05, help="of the fixes, from phones")
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args(argv)
    with running_stack(echo=lambda _line: None) as stack:
        return report(_measure(stack, options))


def _measure(stack: Stack, options: argparse.Namespace) -> Measurements:
    drivers = [f"bench-{n:05}" for n in range(options.drivers)]
    riders = [f"rider-{n:05}" for n in range(PHONES)]
    stack.add_drivers(drivers + riders)
    key = read_fleet_key(stack.paths.fleet_key_file)
    with connect(stack.database_admin_url, application_name="bench") as conn:
        for rider in riders:
            issue_phone(conn, key, rider, "bench")
        conn.commit()
    time.sleep(5)  # broker_sync lets the phones log in
    broker = stack.addresses.mqtt[0]
    devices = connect_phones(broker, {one: mqtt_password(key, one) for one in drivers})
    phones = connect_phones(broker, {phone_username(one): phone_token(key, one) for one in riders})
    measurements = Measurements("foreign-phones", "µs of CPU per fix", [NATIVE, MIXED])
    for run in range(options.runs + 1):  # the first one is a warm-up
        for variant in (NATIVE, MIXED) if run % 2 else (MIXED, NATIVE):
            share = options.share if variant == MIXED else 0.0
            foreign = round(options.fixes * share / PHONES / SECONDS) * SECONDS
            each = (options.fixes - foreign * PHONES) // len(drivers) // SECONDS * SECONDS
            spent = _run(stack, devices, phones, each, foreign, f"{run}-{len(variant)}")
            us = spent / (each * len(drivers) + foreign * PHONES) * 1e6
            progress(f"run {run}: {variant}: {us:.1f}")
            if run:
                measurements.add(variant, us)
    return measurements


def _run(
    stack: Stack,
    devices: Sequence[Phone],
    phones: Sequence[Phone],
    each: int,
    foreign: int,
    boot: str,
) -> float:
    """Send fixes, wait until all are committed, and return the CPU seconds of the stack."""
    total = _stored(stack) + each * len(devices) + foreign * len(phones)
    before = sum(cpu_s(stack.pid_of(part)) for part in PARTS)
    started_s = time.monotonic()
    for second in range(SECONDS):
        time.sleep(max(0.0, started_s + second - time.monotonic()))
        sender = threading.Thread(target=_publish_foreign, args=(phones, foreign // SECONDS))
        sender.start()
        publish(devices, each // SECONDS, f"{boot}-{second}")
        sender.join()
    wait_until(lambda: _stored(stack) == total, TIMEOUT_S, "all are committed", poll_s=0.5)
    return sum(cpu_s(stack.pid_of(part)) for part in PARTS) - before


def _publish_foreign(phones: Sequence[Phone], each: int) -> None:
    """Publish positions as OwnTracks does, one at a time from each phone."""
    for number in range(1, each + 1):
        for phone in phones:
            fix = make_fix("b", number)
            message = {
                "_type": "location",
                "tst": int(time.time()),
                "lat": fix.lat_deg,
                "lon": fix.lon_deg,
                "acc": 6,
                "vel": 18,
                "cog": 271,
                "batt": 87,
                "tid": "an",
                "conn": "m",
            }
            topic = phone_topic_of(phone.driver_id.removesuffix(".phone"))
            phone.sock.setblocking(True)
            phone.sock.sendall(mqtt_packets.publish(topic, number, json.dumps(message).encode()))
        for phone in phones:
            phone.sock.recv(4)


def _stored(stack: Stack) -> int:
    with connect(stack.database_admin_url, application_name="bench") as conn:
        row = conn.execute("SELECT count(*) FROM doorstep.fix_history").fetchone()
    return int(row[0]) if row else 0


if __name__ == "__main__":
    sys.exit(main())
