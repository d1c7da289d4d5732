"""The faults' proxy: what it forwards, drops and signals."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.faults.proxy import Conditions, Proxy

SILENCE_S = 0.3


class Echo:
    """A server that echoes and records what it reads."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.heard: list[bytes] = []
        self.ended = threading.Event()
        self._threads: list[threading.Thread] = []
        self._accepting = threading.Thread(target=self._accept)
        self._accepting.start()

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._answer, args=(peer,))
            thread.start()
            self._threads.append(thread)

    def _answer(self, peer: socket.socket) -> None:
        with peer, contextlib.suppress(OSError):
            while data := peer.recv(65_536):
                self.heard.append(data)
                peer.sendall(data)
        self.ended.set()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in [self._accepting, *self._threads]:
            thread.join(10)


@pytest.fixture
def echo() -> Iterator[Echo]:
    server = Echo()
    yield server
    server.close()


@pytest.fixture
def proxy(echo: Echo) -> Iterator[Proxy]:
    with Proxy(echo.port) as proxy:
        yield proxy


def connect(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), 10)


def read(client: socket.socket, size: int) -> bytes:
    client.settimeout(10)
    data = b""
    while len(data) < size:
        data += client.recv(size - len(data)) or pytest.fail("closed")
    return data


def is_silent(client: socket.socket) -> bool:
    """Say whether nothing arrives, not even the end of the stream."""
    client.settimeout(SILENCE_S)
    try:
        client.recv(1)
    except TimeoutError:
        return True
    return False


def test_proxy__no_conditions__forwards_and_counts_both_ways(proxy: Proxy) -> None:
    with connect(proxy) as client:
        client.sendall(b"x" * 200_000)
        assert read(client, 200_000) == b"x" * 200_000
        assert (proxy.bytes_up, proxy.bytes_down) == (200_000, 200_000)
        assert (proxy.accepted, proxy.open_links) == (1, 1)


def test_proxy__client_ends_its_side__still_gets_the_rest(proxy: Proxy) -> None:
    with connect(proxy) as client:
        client.sendall(b"x" * 500_000)
        client.shutdown(socket.SHUT_WR)
        assert len(read(client, 500_000)) == 500_000
        assert client.recv(1) == b""


def test_black_hole__both_ways__is_silence_and_heals_without_loss(proxy: Proxy, echo: Echo) -> None:
    with connect(proxy) as client:
        client.sendall(b"one")
        assert read(client, 3) == b"one"
        proxy.black_hole()
        client.sendall(b"two")
        assert is_silent(client)
        assert echo.heard == [b"one"]
        proxy.heal()
        assert read(client, 3) == b"two"


def test_black_hole__new_connection__is_not_even_accepted(proxy: Proxy) -> None:
    proxy.black_hole()
    with pytest.raises(TimeoutError):
        socket.create_connection(("127.0.0.1", proxy.port), SILENCE_S)


def test_black_hole__only_down__server_receives_and_client_does_not(
    proxy: Proxy, echo: Echo
) -> None:
    with connect(proxy) as client:
        client.sendall(b"one")
        read(client, 3)
        proxy.black_hole(up=False)
        client.sendall(b"two")
        assert is_silent(client)
        assert echo.heard == [b"one", b"two"]


def test_black_hole__bytes_without_acknowledgement__time_out_at_the_sender(proxy: Proxy) -> None:
    with connect(proxy) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 500)
        client.sendall(b"one")
        read(client, 3)
        proxy.black_hole()
        client.sendall(b"two")
        with pytest.raises(TimeoutError, match="Connection timed out"):  # the kernel's time-out
            client.recv(1)


def test_swallow__open_connection__is_acknowledged_and_silent(proxy: Proxy, echo: Echo) -> None:
    proxy.swallow()
    with connect(proxy) as client:
        client.sendall(b"one")
        assert is_silent(client)
        proxy.heal()
        client.sendall(b"two")
        assert is_silent(client)
        assert echo.heard == []


def test_half_open__server_closed__client_is_not_notified(proxy: Proxy, echo: Echo) -> None:
    with connect(proxy) as client, connect(proxy) as other:
        client.sendall(b"one")
        read(client, 3)
        proxy.half_open()
        assert echo.ended.wait(10)
        proxy.heal()
        client.sendall(b"two")
        assert is_silent(client)
        assert is_silent(other)
        with connect(proxy) as fresh:
            fresh.sendall(b"three")
            assert read(fresh, 5) == b"three"


def test_cut__open_connection__resets_client_and_ends_server(proxy: Proxy, echo: Echo) -> None:
    with connect(proxy) as client:
        client.sendall(b"one")
        read(client, 3)
        proxy.cut()
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        assert echo.ended.wait(10)


def test_latency__with_slices__arrives_late_in_slices_and_in_order(
    proxy: Proxy, echo: Echo
) -> None:
    data = bytes(range(256)) * 4
    proxy.set(Conditions(latency_s=0.1, jitter_s=0.05, slice_bytes=16))
    with connect(proxy) as client:
        started_s = time.monotonic()
        client.sendall(data)
        assert read(client, len(data)) == data
        assert time.monotonic() - started_s >= 0.1  # twice 0.05 at least
        assert len(echo.heard) > 4


def test_bandwidth__more_than_the_limit__is_delayed(proxy: Proxy) -> None:
    proxy.set(Conditions(bytes_per_s=200_000))
    with connect(proxy) as client:
        started_s = time.monotonic()
        client.sendall(b"x" * 200_000)
        assert len(read(client, 200_000)) == 200_000
        assert time.monotonic() - started_s >= 0.6  # without the last chunk's own time
