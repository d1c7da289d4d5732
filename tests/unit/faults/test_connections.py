"""Which connections a port has, as the fault of a renewed certificate counts them."""

from __future__ import annotations

import socket

from tests.faults.tls import connections_to


def test_connections_to__a_connection_that_stays_and_one_that_ends__are_told_apart() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            first = connections_to(port)
            with socket.create_connection(("127.0.0.1", port)):
                both = connections_to(port)
            assert len(first) == 1
            assert first < both
            assert connections_to(port) >= first
            assert not (both - first) & connections_to(port)
    assert connections_to(1) == set()
