"""The MQTT sessions of many devices at one broker, in one epoll loop.

Each uses MQTT 3.1.1 with a clean session, credentials, a last will, a retained status, and
subscriptions to the device's acks and commands. Devices are indexes, from 0 on.
"""

from __future__ import annotations

import contextlib
import os
import random
import select
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.load import device_packets
from bench.load.devices import Device
from doorstep import mqtt_packets
from doorstep.credentials import mqtt_password, read_fleet_key
from doorstep.mqtt_topics import ACK

WAVE = 50  # concurrent connects: half of Mosquitto's listen backlog
KEEPALIVE_S = 60
PING_AFTER_S = 40
PING_ROUND_S = 5
RECONNECT_S = (0.5, 2.0)
READ_BYTES = 400  # most packets are PUBACKs; a watermark has some 130 bytes
EVENTS = 4096
READABLE = select.EPOLLIN | select.EPOLLET
IP_BIND_ADDRESS_NO_PORT = 24  # Linux; not in Python 3.11's socket module
OFF, CONNECTING, ONLINE = 0, 1, 2
_ACK = ACK.encode()


class Sessions:
    """All sessions. Subclasses implement `on_puback` and `on_online`."""

    def __init__(self, plan: dict[str, Any], devices: Sequence[Device]) -> None:
        count = len(devices)
        self._devices = devices
        self._broker = (str(plan["host"]), int(plan["port"]))
        authority: str | None = plan.get("authority_file")
        self._tls = ssl.create_default_context(cafile=authority) if authority else None
        self._read_from: Callable[[int, int], bytes] = self._read_tls if self._tls else os.read
        self._write_to: Callable[[int, bytes], int] = self._write_tls if self._tls else os.write
        self._sources: list[str] = plan["sources"]
        self._key = read_fleet_key(Path(plan["fleet_key_file"]))
        self._epoll = select.epoll()
        self._state = [OFF] * count
        self._sockets: list[socket.socket | None] = [None] * count
        self._fds = [-1] * count
        self._by_fd: dict[int, int] = {}
        self._last_sent_at = [0.0] * count  # per device
        self._unread: dict[int, bytes] = {}  # an incomplete packet
        self._unsent: dict[int, bytes] = {}  # data that did not fit into the socket buffer
        self._to_connect = list(range(count - 1, -1, -1))
        self._retry_at: dict[int, float] = {}
        self._connecting = 0  # without CONNACK or SUBACK yet
        self._pinged_at = 0.0
        self.read_at_s = 0.0
        self.online = 0
        self.lost = 0  # connections
        self.watermarks = 0
        self.bytes_out = 0
        self.bytes_in = 0

    def on_puback(self, device: int, packet_id: int) -> None:
        """Called for a PUBACK."""
        raise NotImplementedError

    def on_online(self, device: int) -> None:
        """Called when a device is connected and subscribed."""
        raise NotImplementedError

    @property
    def is_connecting(self) -> bool:
        """Whether a connect is in progress."""
        return self._connecting > 0

    def serve(self) -> None:
        """Read from all sockets, and connect the devices that are offline."""
        by_fd, serve = self._by_fd, self._serve
        events = self._epoll.poll(0, EVENTS)
        self.read_at_s = time.time()  # data read below arrived before this instant
        for fd, mask in events:
            device = by_fd.get(fd)
            if device is not None:
                serve(device, fd, mask)
        now = time.time()
        if self._to_connect or self._retry_at:
            self._connect_more(now)
        if now - self._pinged_at > PING_ROUND_S:
            self._pinged_at = now
            self._ping_idle(now)

    def _serve(self, device: int, fd: int, mask: int) -> None:
        if mask & select.EPOLLOUT:
            self._send_unsent(device, fd)
        if not mask & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
            return
        more = True
        while more:  # edge-triggered: read until empty
            try:
                data = self._read_from(fd, READ_BYTES)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._disconnect(device)
                return
            self.bytes_in += len(data)
            if len(data) == 4 and data[0] == mqtt_packets.PUBACK and device not in self._unread:
                self.on_puback(device, data[2] << 8 | data[3])
                if self._tls is None:
                    return
                continue
            more = len(data) == READ_BYTES or self._tls is not None  # TLS ends with each record
            self._read(device, data)
            if self._fds[device] != fd:
                return

    def _read(self, device: int, data: bytes) -> None:
        for first, body in device_packets.take_packets(self._unread.pop(device, b"") + data):
            if first == 0:
                if body:
                    self._unread[device] = body
            elif first == mqtt_packets.PUBACK:
                self.on_puback(device, body[0] << 8 | body[1])
            elif first & 0xF0 == mqtt_packets.PUBLISH:
                topic, packet_id, _payload = device_packets.read_publish(first, body)
                if topic.endswith(_ACK):
                    self.watermarks += 1
                if packet_id:
                    self.send(device, mqtt_packets.puback(packet_id))
            elif first == mqtt_packets.CONNACK:
                self._on_connack(device, body[1])
            elif first == mqtt_packets.SUBACK:
                self._on_suback(device, body[2:])

    def _connect_more(self, now: float) -> None:
        for device in [one for one, at in self._retry_at.items() if at <= now]:
            del self._retry_at[device]
            self._to_connect.append(device)
        while self._to_connect and self._connecting < WAVE:
            self._connect(self._to_connect.pop())

    def _connect(self, device: int) -> None:
        one = self._devices[device]
        connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # Choose the port on connect: 28,000 per address pair instead of in all.
            connection.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
            connection.bind((self._sources[device % len(self._sources)], 0))
            connection.connect(self._broker)
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_hostname=self._broker[0])
        except OSError:
            connection.close()
            self._retry_at[device] = time.time() + random.uniform(*RECONNECT_S)
            return
        connection.setblocking(False)
        fd = connection.fileno()
        self._sockets[device], self._fds[device], self._by_fd[fd] = connection, fd, device
        self._state[device] = CONNECTING
        self._connecting += 1
        self._epoll.register(fd, READABLE)
        password = mqtt_password(self._key, one.driver_id)
        will = b'{"status":"offline"}'
        self.send(device, device_packets.connect(one.driver_id, password, will, KEEPALIVE_S))

    def _on_connack(self, device: int, code: int) -> None:
        if code != 0:
            raise PermissionError(f"{self._devices[device].driver_id}: refused with {code}")
        driver_id = self._devices[device].driver_id
        online = b'{"status":"online","at":%d}' % int(time.time() * 1000)
        self.send(
            device, device_packets.subscribe(driver_id) + device_packets.status(driver_id, online)
        )

    def _on_suback(self, device: int, codes: bytes) -> None:
        if mqtt_packets.REFUSED in codes:
            raise PermissionError(f"{self._devices[device].driver_id}: may not subscribe")
        self._state[device] = ONLINE
        self._connecting -= 1
        self.online += 1
        self.on_online(device)

    def _disconnect(self, device: int) -> None:
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
        if self._state[device] == ONLINE:
            self.online -= 1
        else:
            self._connecting -= 1
        self.lost += 1
        self._state[device] = OFF
        self._retry_at[device] = time.time() + random.uniform(*RECONNECT_S)

    def _ping_idle(self, now: float) -> None:
        for device, last_sent_at in enumerate(self._last_sent_at):
            if now - last_sent_at > PING_AFTER_S and self._state[device] == ONLINE:
                self.send(device, mqtt_packets.PINGREQ_PACKET)

    def send(self, device: int, data: bytes) -> None:
        """Send a packet; buffer what does not fit into the socket."""
        self.bytes_out += len(data)
        self._last_sent_at[device] = time.time()
        if device in self._unsent:
            self._unsent[device] += data
            return
        try:
            written = self._write_to(self._fds[device], data)
        except BlockingIOError:
            written = 0
        except OSError:
            self._disconnect(device)
            return
        if written < len(data):
            self._keep_unsent(device, data[written:])

    def _read_tls(self, fd: int, count: int) -> bytes:
        try:
            return self._socket_of(fd).recv(count)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise BlockingIOError from None

    def _write_tls(self, fd: int, data: bytes) -> int:
        try:
            return self._socket_of(fd).send(data)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise BlockingIOError from None

    def _socket_of(self, fd: int) -> socket.socket:
        connection = self._sockets[self._by_fd[fd]]
        if connection is None:
            raise ConnectionError
        return connection

    def _keep_unsent(self, device: int, data: bytes) -> None:
        self._unsent[device] = data
        self._epoll.modify(self._fds[device], READABLE | select.EPOLLOUT)

    def _send_unsent(self, device: int, fd: int) -> None:
        data = self._unsent.pop(device, b"")
        self._epoll.modify(fd, READABLE)
        self.bytes_out -= len(data)
        if data:
            self.send(device, data)
