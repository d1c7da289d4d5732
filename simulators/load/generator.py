"""`python -m simulators.load.generator PLAN`: all devices of one broker, in one epoll loop.

Commands come as JSON lines on standard input, whose end is the end of the process; figures go out
as JSON lines on standard output, one a second. Each device has an MQTT 3.1.1 session of its own
with credentials, a last will, a retained status, subscriptions and QoS 1.

A device's journal is a number here: of its messages 1 to `made`, those above `acked` have no
PUBACK yet, and go out again when a connection was lost.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import random
import select
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from doorstep.credentials import mqtt_password, read_fleet_key
from doorstep.topics import ACK
from simulators.load import frames
from simulators.load.devices import Device, Fixes
from simulators.load.histogram import Histogram
from simulators.load.schedule import Schedule

WAVE = 50  # connecting at once: half of Mosquitto's listen backlog
TICK_S = 0.004  # 250 turns a second; what falls due meanwhile goes out together
CONNECTING_TICK_S = 0.001
KEEPALIVE_S = 60
PING_AFTER_S = 40
PING_ROUND_S = 5
RECONNECT_S = (0.5, 2.0)
READ_BYTES = 1024
IP_BIND_ADDRESS_NO_PORT = 24  # Linux; Python 3.11 has no name for it
OFF, CONNECTING, LIVE = 0, 1, 2


class Generator:
    """The devices of one broker."""

    def __init__(self, plan: dict[str, Any], say: Callable[[dict[str, Any]], None]) -> None:
        self._devices = [Device.from_json(one) for one in plan["devices"]]
        self._broker = (str(plan["host"]), int(plan["port"]))
        self._sources: list[str] = plan["sources"]
        self._key = read_fleet_key(Path(plan["fleet_key_file"]))
        self._folder = Path(plan["folder"])
        self._say = say
        self._per_message = int(plan["fixes_per_message"])
        self.schedule = Schedule([one.share for one in self._devices], self._per_message)
        self.fixes = Fixes(self._devices, self.schedule, self._per_message)
        count = len(self._devices)
        self.made = [0] * count  # messages
        self.acked = [0] * count  # of these, all up to here have a PUBACK
        self._acked_beyond: dict[int, set[int]] = {}
        self._state = [OFF] * count
        self._sockets: list[socket.socket | None] = [None] * count
        self._fds = [-1] * count
        self._by_fd: dict[int, int] = {}
        self._spoke_at = [0.0] * count  # when the device last sent anything
        self._unread: dict[int, bytes] = {}  # the beginning of a packet
        self._unsent: dict[int, bytes] = {}  # what a full socket didn't take
        self._to_connect = list(range(count - 1, -1, -1))
        self._retry_at: dict[int, float] = {}
        self._waiting = 0  # for CONNACK and SUBACK
        self._epoll = select.epoll()
        self._live = 0
        self._was_live = [False] * count
        self._offsets: list[float] = []
        self._round_ms = 0.0
        self._cursor = 0
        self._until_ms = 0.0  # no message that is due from here on
        self._window = (0.0, 0.0)
        self._resent = 0
        self._pinged_at = 0.0
        self._puback_in_window = Histogram()
        self._puback = Histogram()  # of this second
        self._late_ms = 0.0
        self._bytes = [0, 0]  # out, in
        self._counts = dict.fromkeys(("published", "pubacks", "watermarks", "lost_connections"), 0)

    # -- what it is told ----------------------------------------------------------------------

    def obey(self, command: dict[str, Any]) -> None:
        """Do what the conductor says."""
        match command["do"]:
            case "flow":
                began_ms, interval_ms = float(command["from_ms"]), float(command["interval_ms"])
                if not any(self.made):
                    self.fixes.origin_ms = began_ms
                self.schedule.begin(began_ms, interval_ms, self.made)
                self._offsets = self.schedule.offsets_ms()
                self._round_ms, self._cursor = self.schedule.first_round_ms(), 0
                self._until_ms = float(command["until_ms"])
                self._window = tuple(command["window_ms"])
                self._puback_in_window = Histogram()
            case "resend":
                for device, number in command["messages"]:
                    self._send_again(device, number)
            case "ledger":
                path = self._folder / f"ledger-{os.getpid()}.json"
                beyond = {one: sorted(seqs) for one, seqs in self._acked_beyond.items() if seqs}
                path.write_text(json.dumps([self.made, self.acked, beyond]), encoding="ascii")
                latencies = list(self._puback_in_window.counts.items())
                self._say({"ledger": str(path), "puback": latencies})
            case unknown:
                raise ValueError(f"{unknown!r} is not a command")

    # -- the loop -----------------------------------------------------------------------------

    def turn(self) -> None:
        """Send what is due, read what has come, connect whoever is not; then rest a little."""
        began = time.time()
        if self._round_ms and self._offsets:
            self._publish_due(began * 1000)
        for fd, mask in self._epoll.poll(0, 4096):
            device = self._by_fd.get(fd)
            if device is not None:
                self._serve(device, fd, mask)
        if self._to_connect or self._retry_at:
            self._connect_more(began)
        if began - self._pinged_at > PING_ROUND_S:
            self._pinged_at = began
            self._ping_idle(began)
        tick_s = CONNECTING_TICK_S if self._waiting else TICK_S
        rest_s = began + tick_s - time.time()
        if rest_s > 0:
            time.sleep(rest_s)

    def _publish_due(self, now_ms: float) -> None:
        offsets, made, state = self._offsets, self.made, self._state
        fds, spoke_at, message = self._fds, self._spoke_at, self.fixes.message
        write, unsent, count = os.write, self._unsent, len(self._offsets)
        round_ms, cursor, until_ms = self._round_ms, self._cursor, self._until_ms
        published = sent_bytes = 0
        now_s = now_ms / 1000
        first_due = round_ms + offsets[cursor]
        while (due := round_ms + offsets[cursor]) <= now_ms and due < until_ms:
            number = made[cursor] + 1
            made[cursor] = number
            published += 1
            if state[cursor] == LIVE:
                frame = message(cursor, number, int(due))
                sent_bytes += len(frame)
                spoke_at[cursor] = now_s
                if cursor in unsent:
                    unsent[cursor] += frame
                else:
                    try:
                        taken = write(fds[cursor], frame)
                        if taken < len(frame):
                            self._keep_unsent(cursor, frame[taken:])
                    except BlockingIOError:
                        self._keep_unsent(cursor, frame)
                    except OSError:
                        self._lose(cursor)
            cursor += 1
            if cursor == count:
                cursor = 0
                round_ms += self.schedule.period_ms
        self._round_ms, self._cursor = round_ms, cursor
        self._bytes[0] += sent_bytes
        self._counts["published"] += published
        if published:
            self._late_ms = max(self._late_ms, now_ms - first_due)

    def _serve(self, device: int, fd: int, mask: int) -> None:
        if mask & select.EPOLLOUT:
            self._send_unsent(device, fd)
        if not mask & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
            return
        try:
            data = os.read(fd, READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._lose(device)
            return
        self._bytes[1] += len(data)
        if len(data) == 4 and data[0] == frames.PUBACK and device not in self._unread:
            self._on_puback(device, data[2] << 8 | data[3])
        else:
            self._read(device, data)

    def _on_puback(self, device: int, packet_id: int) -> None:
        number = self.acked[device] + 1
        if packet_id > frames.FIX_IDS:
            return
        self._counts["pubacks"] += 1
        if packet_id != (number - 1) % frames.FIX_IDS + 1:
            number += (packet_id - number) % frames.FIX_IDS
            if number <= self.made[device]:
                self._acked_beyond.setdefault(device, set()).add(number)
        else:
            self.acked[device] = number
            beyond = self._acked_beyond.get(device)
            while beyond and self.acked[device] + 1 in beyond:
                self.acked[device] += 1
                beyond.remove(self.acked[device])
        due_ms = self.schedule.due_ms(device, number * self._per_message)
        latency_ms = time.time() * 1000 - due_ms
        self._puback.add(latency_ms)
        begins, ends = self._window
        if begins <= due_ms < ends:
            self._puback_in_window.add(latency_ms)

    def _read(self, device: int, data: bytes) -> None:
        for first, body in frames.take_packets(self._unread.pop(device, b"") + data):
            if first == 0:
                if body:
                    self._unread[device] = body
            elif first == frames.PUBACK:
                self._on_puback(device, body[0] << 8 | body[1])
            elif first & 0xF0 == frames.PUBLISH:
                topic, packet_id, _payload = frames.read_publish(first, body)
                if topic.endswith(ACK.encode()):
                    self._counts["watermarks"] += 1
                if packet_id:
                    self._send(device, frames.puback(packet_id))
            elif first == frames.CONNACK:
                self._on_connack(device, body[1])
            elif first == frames.SUBACK:
                self._on_suback(device, body[2:])

    # -- connections --------------------------------------------------------------------------

    def _connect_more(self, now: float) -> None:
        for device in [one for one, at in self._retry_at.items() if at <= now]:
            del self._retry_at[device]
            self._to_connect.append(device)
        while self._to_connect and self._waiting < WAVE:
            self._connect(self._to_connect.pop())

    def _connect(self, device: int) -> None:
        one = self._devices[device]
        connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # The port is chosen when connecting: 28,000 a pair of addresses, not in all.
            connection.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
            connection.bind((self._sources[device % len(self._sources)], 0))
            connection.connect(self._broker)
        except OSError:
            connection.close()
            self._retry_at[device] = time.time() + random.uniform(*RECONNECT_S)
            return
        connection.setblocking(False)
        fd = connection.fileno()
        self._sockets[device], self._fds[device], self._by_fd[fd] = connection, fd, device
        self._state[device] = CONNECTING
        self._waiting += 1
        self._epoll.register(fd, select.EPOLLIN)
        password = mqtt_password(self._key, one.driver_id)
        will = b'{"status":"offline"}'
        self._send(device, frames.connect(one.driver_id, password, will, KEEPALIVE_S))

    def _on_connack(self, device: int, code: int) -> None:
        if code != 0:
            raise PermissionError(f"{self._devices[device].driver_id}: refused with {code}")
        driver_id = self._devices[device].driver_id
        online = b'{"status":"online","at":%d}' % int(time.time() * 1000)
        self._send(device, frames.subscribe(driver_id) + frames.status(driver_id, online))

    def _on_suback(self, device: int, codes: bytes) -> None:
        if frames.REFUSED in codes:
            raise PermissionError(f"{self._devices[device].driver_id}: may not subscribe")
        self._state[device] = LIVE
        self._waiting -= 1
        self._live += 1
        beyond = self._acked_beyond.get(device, ())
        for number in range(self.acked[device] + 1, self.made[device] + 1):
            if number not in beyond:
                packet_id = (number - 1) % frames.FIX_IDS + 1
                self._resent += self._per_message * self._was_live[device]
                self._send(device, self.fixes.again(device, number, packet_id))
        self._was_live[device] = True

    def _lose(self, device: int) -> None:
        connection = self._sockets[device]
        if connection is None:
            return
        fd = self._fds[device]
        with contextlib.suppress(OSError):
            self._epoll.unregister(fd)
        connection.close()
        del self._by_fd[fd]
        self._sockets[device], self._fds[device] = None, -1
        self._unread.pop(device, None)
        self._unsent.pop(device, None)
        if self._state[device] == LIVE:
            self._live -= 1
        else:
            self._waiting -= 1
        self._counts["lost_connections"] += 1
        self._state[device] = OFF
        self._retry_at[device] = time.time() + random.uniform(*RECONNECT_S)

    def _ping_idle(self, now: float) -> None:
        for device, spoke_at in enumerate(self._spoke_at):
            if now - spoke_at > PING_AFTER_S and self._state[device] == LIVE:
                self._send(device, frames.PINGREQ_PACKET)

    # -- sending ------------------------------------------------------------------------------

    def _send_again(self, device: int, number: int) -> None:
        self._resent += self._per_message
        packet_id = frames.RESENT_ID + number % frames.RESENT_IDS
        if self._state[device] == LIVE:
            self._send(device, self.fixes.again(device, number, packet_id))

    def _send(self, device: int, data: bytes) -> None:
        self._bytes[0] += len(data)
        self._spoke_at[device] = time.time()
        if device in self._unsent:
            self._unsent[device] += data
            return
        try:
            taken = os.write(self._fds[device], data)
        except BlockingIOError:
            taken = 0
        except OSError:
            self._lose(device)
            return
        if taken < len(data):
            self._keep_unsent(device, data[taken:])

    def _keep_unsent(self, device: int, data: bytes) -> None:
        self._unsent[device] = data
        self._epoll.modify(self._fds[device], select.EPOLLIN | select.EPOLLOUT)

    def _send_unsent(self, device: int, fd: int) -> None:
        data = self._unsent.pop(device, b"")
        self._epoll.modify(fd, select.EPOLLIN)
        self._bytes[0] -= len(data)
        if data:
            self._send(device, data)

    # -- figures ------------------------------------------------------------------------------

    def figures(self) -> dict[str, Any]:
        """What has been counted so far, and the PUBACK latencies since the last time."""
        found: dict[str, Any] = {
            **self._counts,
            "connected": self._live,
            "late_ms": round(self._late_ms, 1),
            "puback": list(self._puback.counts.items()),
            "bytes_out": self._bytes[0],
            "bytes_in": self._bytes[1],
            "resent": self._resent,
        }
        found["published"] *= self._per_message
        found["pubacks"] *= self._per_message
        self._puback = Histogram()
        self._late_ms = 0.0
        return found


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
    commands_at = 0.0
    while True:
        generator.turn()
        now = time.time()
        if now - commands_at > 0.02:
            commands_at = now
            try:
                fresh = os.read(0, 1 << 20)
            except BlockingIOError:
                fresh = None
            if fresh == b"":
                return 0
            *lines, waiting = (waiting + (fresh or b"")).split(b"\n")
            for line in lines:
                generator.obey(json.loads(line))
        if int(now) != said_at:
            said_at = int(now)
            say(generator.figures())


if __name__ == "__main__":
    sys.exit(main())
