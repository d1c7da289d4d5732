"""`python -m bench.load.generator PLAN`: all devices of one broker, in one epoll loop.

Reads commands as JSON lines from standard input until it closes; writes statistics as JSON lines
to standard output, one per second.

A device's journal is a number: of its messages 1 to `generated`, those above `acked` have no PUBACK
yet, and are resent after a reconnect.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.load import device_packets
from bench.load.devices import Device, Fixes
from bench.load.histogram import Histogram
from bench.load.schedule import Schedule
from bench.load.sessions import ONLINE, Sessions

TICK_S = 0.04  # 25 iterations a second; messages due in between are sent together
CONNECTING_TICK_S = 0.001
COMMANDS_EVERY_S = 0.02
COMMAND_BYTES = 1 << 20

Emit = Callable[[dict[str, Any]], None]


class Generator(Sessions):
    """The devices of one broker, and their publish loop."""

    def __init__(self, plan: dict[str, Any], emit: Emit) -> None:
        devices = [Device.from_json(one) for one in plan["devices"]]
        super().__init__(plan, devices)
        self._folder = Path(plan["folder"])
        self._emit = emit
        self._per_message = int(plan["fixes_per_message"])
        self.schedule = Schedule([one.share for one in devices], self._per_message)
        self.fixes = Fixes(devices, self.schedule, self._per_message)
        self.generated = [0] * len(devices)  # messages
        self.acked = [0] * len(devices)  # all messages up to this number have a PUBACK
        self.acked_beyond: dict[int, set[int]] = {}
        self._was_online = [False] * len(devices)
        self._offsets_ms: list[int] = []
        self._round = 0
        self._cursor = 0  # the next device to publish
        self._until_ms = 0  # exclusive end of publishing
        self._window = (0, 0)
        self._due_ms = [0] * len(devices)  # of the newest message
        self._puback_in_window = Histogram()
        self._puback = Histogram()  # of this second, inside the window
        self._puback_outside = Histogram()  # and outside it
        self._lag_ms = 0.0
        self._published = self._pubacks = self._resent = 0  # messages

    # -- commands -----------------------------------------------------------------------------

    def handle_command(self, command: dict[str, Any]) -> None:
        """Handle a command of the coordinator."""
        match command["do"]:
            case "publish":
                began_ms = int(command["from_ms"])
                if not any(self.generated):
                    self.fixes.start_ms = began_ms
                self.schedule.start_period(began_ms, float(command["interval_ms"]), self.generated)
                self._offsets_ms = self.schedule.offsets_ms()
                self._round = self._cursor = 0
                self._until_ms = int(command["until_ms"])
                self._window = tuple(command["window_ms"])
                self._puback_in_window = Histogram()
            case "resend":
                for device, number in command["messages"]:
                    self._resend_message(device, number)
            case "ledger":
                self._rotate_histogram()
                path = self._folder / f"ledger-{os.getpid()}.json"
                beyond = {one: sorted(found) for one, found in self.acked_beyond.items() if found}
                path.write_text(json.dumps([self.generated, self.acked, beyond]), encoding="ascii")
                latencies = list(self._puback_in_window.counts.items())
                self._emit({"ledger": str(path), "puback": latencies})
            case unknown:
                raise ValueError(f"unknown command: {unknown!r}")

    # -- the loop -----------------------------------------------------------------------------

    def run_once(self) -> None:
        """Publish due messages, read responses, and reconnect; then sleep until the next tick."""
        began_s = time.time()
        if self._offsets_ms:
            self._publish_due(began_s)
        self.serve()
        tick_s = CONNECTING_TICK_S if self.is_connecting else TICK_S
        remaining_s = began_s + tick_s - time.time()
        if remaining_s > 0:
            time.sleep(remaining_s)

    def _publish_due(self, now_s: float) -> None:
        offsets_ms, generated, state, fds = self._offsets_ms, self.generated, self._state, self._fds
        last_sent_at, unsent, message = self._last_sent_at, self._unsent, self.fixes.message
        write, count, now_ms = self._write_to, len(self._offsets_ms), now_s * 1000
        newest_ms = self._due_ms
        until_ms, device = min(now_ms, self._until_ms - 1), self._cursor
        round_ms = self.schedule.round_ms(self._round)
        first_due_ms = round_ms + offsets_ms[device]
        published = sent_bytes = 0
        while (due_ms := round_ms + offsets_ms[device]) <= until_ms:
            number = generated[device] + 1
            generated[device] = number
            newest_ms[device] = due_ms
            published += 1
            if state[device] == ONLINE:
                frame = message(device, number, due_ms)
                last_sent_at[device] = now_s
                if device in unsent:
                    self.send(device, frame)
                else:
                    sent_bytes += len(frame)
                    try:
                        written = write(fds[device], frame)
                    except BlockingIOError:
                        written = 0
                    except OSError:
                        written = len(frame)
                        self._disconnect(device)
                    if written < len(frame):
                        self._keep_unsent(device, frame[written:])
            device += 1
            if device == count:
                device = 0
                self._round += 1
                round_ms = self.schedule.round_ms(self._round)
        self._cursor = device
        self.bytes_out += sent_bytes
        self._published += published
        if published:
            self._lag_ms = max(self._lag_ms, now_ms - first_due_ms)

    def on_puback(self, device: int, packet_id: int) -> None:
        """Record a PUBACK. PUBACKs may arrive in any order."""
        if packet_id > device_packets.FIX_IDS:
            return  # of a status message, or of a resent one
        number = self.acked[device] + 1
        if packet_id != (number - 1) % device_packets.FIX_IDS + 1:
            number += (packet_id - number) % device_packets.FIX_IDS
            if number > self.generated[device]:
                return
            self.acked_beyond.setdefault(device, set()).add(number)
        else:
            self.acked[device] = number
            beyond = self.acked_beyond.get(device)
            while beyond and self.acked[device] + 1 in beyond:
                self.acked[device] += 1
                beyond.remove(self.acked[device])
        self._pubacks += 1
        if number == self.generated[device]:
            due_ms = self._due_ms[device]
        else:
            due_ms = self.schedule.due_ms(device, number * self._per_message)
        begins_ms, ends_ms = self._window
        histogram = self._puback if begins_ms <= due_ms < ends_ms else self._puback_outside
        histogram.add(self.read_at_s * 1000 - due_ms)

    # -- resending ----------------------------------------------------------------------------

    def on_online(self, device: int) -> None:
        """Resend the messages without a PUBACK after a reconnect."""
        beyond = self.acked_beyond.get(device, ())
        for number in range(self.acked[device] + 1, self.generated[device] + 1):
            if number not in beyond:
                packet_id = (number - 1) % device_packets.FIX_IDS + 1
                self._resent += self._was_online[device]
                self.send(device, self.fixes.repeat(device, number, packet_id))
        self._was_online[device] = True

    def _resend_message(self, device: int, number: int) -> None:
        self._resent += 1
        if self._state[device] == ONLINE:
            packet_id = device_packets.RESENT_ID + number % device_packets.RESENT_IDS
            self.send(device, self.fixes.repeat(device, number, packet_id))

    # -- statistics ---------------------------------------------------------------------------

    def stats(self) -> dict[str, Any]:
        """Totals so far, and the PUBACK latencies since the last call."""
        outside, self._puback_outside = self._puback_outside, Histogram()
        outside.merge(self._rotate_histogram())
        found: dict[str, Any] = {
            "connected": self.online,
            "published": self._published * self._per_message,
            "pubacks": self._pubacks * self._per_message,
            "resent": self._resent * self._per_message,
            "watermarks": self.watermarks,
            "disconnects": self.lost,
            "bytes_out": self.bytes_out,
            "bytes_in": self.bytes_in,
            "lag_ms": round(self._lag_ms, 1),
            "puback": list(outside.counts.items()),
        }
        self._lag_ms = 0.0
        return found

    def _rotate_histogram(self) -> list[tuple[int, int]]:
        """Add the current second's latencies to the window's, and return them."""
        counts = list(self._puback.counts.items())
        self._puback_in_window.merge(counts)
        self._puback = Histogram()
        return counts


def main() -> int:
    """Run until standard input ends."""
    plan = json.loads(Path(sys.argv[1]).read_text(encoding="ascii"))

    def emit(line: dict[str, Any]) -> None:
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()

    generator = Generator(plan, emit)
    del plan
    gc.collect()
    gc.freeze()
    gc.disable()  # this process creates no cycles, and a full collection takes 50 ms
    os.set_blocking(0, False)
    partial = b""
    emitted_at = 0
    read_at_s = 0.0
    while True:
        generator.run_once()
        now_s = time.time()
        if now_s - read_at_s > COMMANDS_EVERY_S:
            read_at_s = now_s
            try:
                received = os.read(0, COMMAND_BYTES)
            except BlockingIOError:
                received = None
            if received == b"":
                return 0
            *lines, partial = (partial + (received or b"")).split(b"\n")
            for line in lines:
                generator.handle_command(json.loads(line))
        if int(now_s) != emitted_at:
            emitted_at = int(now_s)
            emit(generator.stats())


if __name__ == "__main__":
    sys.exit(main())
