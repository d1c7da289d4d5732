"""The images' health check, against an HTTP server in this process."""

from __future__ import annotations

import pytest

from doorstep.healthcheck import is_ready, ready_port
from doorstep.settings import Bind
from doorstep.telemetry import serve_telemetry


def test_ready_port__bind_of_the_service__gives_the_port() -> None:
    environment = {"SERVICE": "driver_api", "DRIVER_API_BIND": "0.0.0.0:8001", "BRIDGE_BIND": "x:1"}
    assert ready_port(environment) == 8001


@pytest.mark.parametrize("environment", [{}, {"SERVICE": "bridge"}, {"BRIDGE_BIND": "0.0.0.0:1"}])
def test_ready_port__no_bind__is_an_error(environment: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="has no port"):
        ready_port(environment)


@pytest.mark.parametrize("there", [True, False])
def test_is_ready__any_answer__is_that_of_readyz(there: bool) -> None:
    server = serve_telemetry(Bind("127.0.0.1", 0), lambda: {"kafka": there})
    try:
        assert is_ready(server.port) is there
    finally:
        server.close()


def test_is_ready__no_answer__is_false() -> None:
    server = serve_telemetry(Bind("127.0.0.1", 0), dict)
    port = server.port
    server.close()
    assert is_ready(port) is False
