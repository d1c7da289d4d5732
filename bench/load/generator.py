"""`python -m bench.load.generator PLAN`: all devices of one broker, in one epoll loop.

Commands come as JSON lines on standard input, whose end is the end of the process; figures go out
as JSON lines on standard output, one a second.

A device's journal is a number here: of its messages 1 to `made`, those above `acked` have no
PUBACK yet, and go out again when a connection was lost.
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

from bench.load import mqtt_packets
from bench.load.devices import Device, Fixes
from bench.load.histogram import Histogram
from bench.load.schedule import Schedule
from bench.load.sessions import LIVE, Sessions

TICK_S = 0.04  # 25 turns a second; what falls due meanwhile goes out together
CONNECTING_TICK_S = 0.001
COMMANDS_EVERY_S = 0.02
COMMAND_BYTES = 1 << 20

Say = Callable[[dict[str, Any]], None]


class Generator(Sessions):
    """The devices of one broker, and what they publish when."""

    def __init__(self, plan: dict[str, Any], say: Say) -> None:
        devices = [Device.from_json(one) for one in plan["devices"]]
        super().__init__(plan, devices)
        self._folder = Path(plan["folder"])
        self._say = say
        self._per_message = int(plan["fixes_per_message"])
        self.schedule = Schedule([one.share for one in devices], self._per_message)
        self.fixes = Fixes(devices, self.schedule, self._per_message)
        self.made = [0] * len(devices)  # messages
        self.acked = [0] * len(devices)  # of these, all up to here have a PUBACK
        self.acked_beyond: dict[int, set[int]] = {}
        self._was_live = [False] * len(devices)
        self._offsets_ms: list[int] = []
        self._round = 0
        self._cursor = 0  # whose turn it is
        self._until_ms = 0  # no message that is due from here on
        self._window = (0, 0)
        self._due_ms = [0] * len(devices)  # of the newest message
        self._puback_in_window = Histogram()
        self._puback = Histogram()  # of this second, in the window
        self._puback_beside = Histogram()  # and outside
        self._late_ms = 0.0
        self._published = self._pubacks = self._resent = 0  # messages

    # -- what it is told ----------------------------------------------------------------------

    def obey(self, command: dict[str, Any]) -> None:
        """Do what the conductor says."""
        match command["do"]:
            case "flow":
                began_ms = int(command["from_ms"])
                if not any(self.made):
                    self.fixes.origin_ms = began_ms
                self.schedule.begin(began_ms, float(command["interval_ms"]), self.made)
                self._offsets_ms = self.schedule.offsets_ms()
                self._round = self._cursor = 0
                self._until_ms = int(command["until_ms"])
                self._window = tuple(command["window_ms"])
                self._puback_in_window = Histogram()
            case "resend":
                for device, number in command["messages"]:
                    self._send_again(device, number)
            case "ledger":
                self._end_second()
                path = self._folder / f"ledger-{os.getpid()}.json"
                beyond = {one: sorted(found) for one, found in self.acked_beyond.items() if found}
                path.write_text(json.dumps([self.made, self.acked, beyond]), encoding="ascii")
                latencies = list(self._puback_in_window.counts.items())
                self._say({"ledger": str(path), "puback": latencies})
            case unknown:
                raise ValueError(f"{unknown!r} is not a command")

    # -- the loop -----------------------------------------------------------------------------

    def turn(self) -> None:
        """Send what is due, read what has come, connect whoever is not; then rest a little."""
        began_s = time.time()
        if self._offsets_ms:
            self._publish_due(began_s)
        self.serve()
        tick_s = CONNECTING_TICK_S if self.is_connecting else TICK_S
        rest_s = began_s + tick_s - time.time()
        if rest_s > 0:
            time.sleep(rest_s)

    def _publish_due(self, now_s: float) -> None:
        offsets_ms, made, state, fds = self._offsets_ms, self.made, self._state, self._fds
        spoke_at, unsent, message = self._spoke_at, self._unsent, self.fixes.message
        write, count, now_ms = os.write, len(self._offsets_ms), now_s * 1000
        newest_ms = self._due_ms
        until_ms, device = min(now_ms, self._until_ms - 1), self._cursor
        round_ms = self.schedule.round_ms(self._round)
        first_due_ms = round_ms + offsets_ms[device]
        published = sent_bytes = 0
        while (due_ms := round_ms + offsets_ms[device]) <= until_ms:
            number = made[device] + 1
            made[device] = number
            newest_ms[device] = due_ms
            published += 1
            if state[device] == LIVE:
                frame = message(device, number, due_ms)
                spoke_at[device] = now_s
                if device in unsent:
                    self.send(device, frame)
                else:
                    sent_bytes += len(frame)
                    try:
                        taken = write(fds[device], frame)
                    except BlockingIOError:
                        taken = 0
                    except OSError:
                        taken = len(frame)
                        self._lose(device)
                    if taken < len(frame):
                        self._keep_unsent(device, frame[taken:])
            device += 1
            if device == count:
                device = 0
                self._round += 1
                round_ms = self.schedule.round_ms(self._round)
        self._cursor = device
        self.bytes_out += sent_bytes
        self._published += published
        if published:
            self._late_ms = max(self._late_ms, now_ms - first_due_ms)

    def on_puback(self, device: int, packet_id: int) -> None:
        """Note a PUBACK of a message, which may come in any order."""
        if packet_id > mqtt_packets.FIX_IDS:
            return  # of a status, or of a message that was sent again
        number = self.acked[device] + 1
        if packet_id != (number - 1) % mqtt_packets.FIX_IDS + 1:
            number += (packet_id - number) % mqtt_packets.FIX_IDS
            if number > self.made[device]:
                return
            self.acked_beyond.setdefault(device, set()).add(number)
        else:
            self.acked[device] = number
            beyond = self.acked_beyond.get(device)
            while beyond and self.acked[device] + 1 in beyond:
                self.acked[device] += 1
                beyond.remove(self.acked[device])
        self._pubacks += 1
        if number == self.made[device]:
            due_ms = self._due_ms[device]
        else:
            due_ms = self.schedule.due_ms(device, number * self._per_message)
        begins_ms, ends_ms = self._window
        histogram = self._puback if begins_ms <= due_ms < ends_ms else self._puback_beside
        histogram.add(self.read_at_s * 1000 - due_ms)

    # -- once more ----------------------------------------------------------------------------

    def on_live(self, device: int) -> None:
        """Send what has no PUBACK: it was made, or lost, while the device was away."""
        beyond = self.acked_beyond.get(device, ())
        for number in range(self.acked[device] + 1, self.made[device] + 1):
            if number not in beyond:
                packet_id = (number - 1) % mqtt_packets.FIX_IDS + 1
                self._resent += self._was_live[device]
                self.send(device, self.fixes.again(device, number, packet_id))
        self._was_live[device] = True

    def _send_again(self, device: int, number: int) -> None:
        self._resent += 1
        if self._state[device] == LIVE:
            packet_id = mqtt_packets.RESENT_ID + number % mqtt_packets.RESENT_IDS
            self.send(device, self.fixes.again(device, number, packet_id))

    # -- figures ------------------------------------------------------------------------------

    def figures(self) -> dict[str, Any]:
        """What has been counted so far, and the PUBACK latencies since the last time."""
        beside, self._puback_beside = self._puback_beside, Histogram()
        beside.merge(self._end_second())
        found: dict[str, Any] = {
            "connected": self.live,
            "published": self._published * self._per_message,
            "pubacks": self._pubacks * self._per_message,
            "resent": self._resent * self._per_message,
            "watermarks": self.watermarks,
            "lost_connections": self.lost,
            "bytes_out": self.bytes_out,
            "bytes_in": self.bytes_in,
            "late_ms": round(self._late_ms, 1),
            "puback": list(beside.counts.items()),
        }
        self._late_ms = 0.0
        return found

    def _end_second(self) -> list[tuple[int, int]]:
        """Add the second's latencies to the window's, and give them."""
        counts = list(self._puback.counts.items())
        self._puback_in_window.merge(counts)
        self._puback = Histogram()
        return counts


def main() -> int:
    """Run until standard input ends."""
    plan = json.loads(Path(sys.argv[1]).read_text(encoding="ascii"))

    def say(line: dict[str, Any]) -> None:
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()

    generator = Generator(plan, say)
    del plan
    gc.collect()
    gc.freeze()
    gc.disable()  # nothing here makes cycles, and a full collection takes 50 ms
    os.set_blocking(0, False)
    waiting = b""
    said_at = 0
    read_at_s = 0.0
    while True:
        generator.turn()
        now_s = time.time()
        if now_s - read_at_s > COMMANDS_EVERY_S:
            read_at_s = now_s
            try:
                fresh = os.read(0, COMMAND_BYTES)
            except BlockingIOError:
                fresh = None
            if fresh == b"":
                return 0
            *lines, waiting = (waiting + (fresh or b"")).split(b"\n")
            for line in lines:
                generator.obey(json.loads(line))
        if int(now_s) != said_at:
            said_at = int(now_s)
            say(generator.figures())


if __name__ == "__main__":
    sys.exit(main())
