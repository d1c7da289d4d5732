"""Polling, and a server process: started, frozen, ended. The server is a Python one-liner."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from ops.servers.process import ServerProcess
from ops.servers.waiting import poll_until, wait_until, wait_until_async

LISTEN = """
import socket, sys, time
print("listening", flush=True)
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
time.sleep(600)
"""


class Listener(ServerProcess):
    def argv(self) -> list[str]:
        return [sys.executable, "-c", LISTEN, str(self.port)]


class Failing(ServerProcess):
    def argv(self) -> list[str]:
        return [sys.executable, "-c", "raise SystemExit('no configuration')"]


def test_poll_until__condition_becomes_true__returns_true() -> None:
    values = iter([0, 0, 1])
    assert poll_until(lambda: next(values), poll_s=0.001)


def test_poll_until__condition_stays_false__returns_false() -> None:
    assert not poll_until(lambda: False, 0.0)


def test_wait_until__condition_stays_false__names_it() -> None:
    with pytest.raises(TimeoutError, match="the bridge is ready"):
        wait_until(lambda: False, 0.0, "the bridge is ready")


async def test_wait_until_async__condition_stays_false__names_it() -> None:
    with pytest.raises(TimeoutError, match="the bridge is ready"):
        await wait_until_async(lambda: False, 0.0, "the bridge is ready")


def test_server_process__killed_and_started__is_ready_again_on_its_port(tmp_path: Path) -> None:
    server = Listener(tmp_path / "server")
    server.start()
    try:
        first, port = server.pid, server.port
        server.kill()
        assert server.exit_code == -signal.SIGKILL
        server.start()
        assert (server.pid != first, server.port, server.exit_code) == (True, port, None)
        assert server.log().count("listening") == 2
    finally:
        server.stop()
    assert server.exit_code == -signal.SIGTERM


def test_server_process__frozen__is_ended_by_stop(tmp_path: Path) -> None:
    server = Listener(tmp_path / "server")
    server.start()
    server.signal(signal.SIGSTOP)
    server.stop()
    assert server.exit_code == -signal.SIGTERM
    server.end(signal.SIGKILL)
    assert server.exit_code == -signal.SIGTERM


def test_server_process__ends_at_start__raises_with_its_log(tmp_path: Path) -> None:
    server = Failing(tmp_path / "server")
    server.launch()
    with pytest.raises(RuntimeError, match="no configuration"):
        server.wait_ready()
